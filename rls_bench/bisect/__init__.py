"""Which commit, or which version of a package, made it slow.

``search`` halves what is left, whoever measures; ``latency`` measures as ``rls-bench ab`` does, ``instructions`` counts
what the Triton kernels compile to; ``environments`` has a package's versions beside one another.
"""
