"""Many machines, one command: every kind of device measures the same cells by the runner of ``rls-bench run``.

``kinds`` says which nodes have what was asked for, ``folder`` which cells are measured and where they lie, ``ledger``
what was tried, ``driver`` who measures what next, ``suspects`` which machine to believe. Ray carries the calls, and
``cluster`` is the one place that knows it; ``agent`` and ``measure`` run on the machines.
"""
