"""One call made ready to be run again and again, as a plan runs it: what is measured is what production runs."""

from __future__ import annotations

from typing import Any

from rls_bench.backends.anew import Anew
from rls_bench.backends.interface import Backend, Call
from rls_bench.machines import vector_math
from rls_bench.planning.watching import is_watched
from rls_bench.problems.inputs import Inputs


def repeated(backend: Backend, inputs: Inputs) -> Call:
    """``backend``'s call on ``inputs``, whose values may change in place between calls.

    By the backend's ``launch`` where it has one of its own for them, and what ``prepare`` returns where it hasn't, or
    while something watches this thread's operators. Raises what these raise.
    """
    vector_math.settle()
    launch = backend.launch(inputs)
    if type(launch) is Anew:
        return backend.prepare(inputs)
    seen = launch.see(inputs.key_lengths)
    in_sight: list[Call] = []

    def call() -> Any:
        if is_watched():
            if not in_sight:
                in_sight.append(backend.prepare(inputs))
            return in_sight[0]()
        return launch.run(inputs.query, inputs.key, inputs.value, launch.steer(inputs.bias, inputs.strength, seen))

    return call
