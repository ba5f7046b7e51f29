"""One call of a backend in a process of its own, for a profiler to watch: ``python -m rls_bench.probes.one_call``.

The arguments are a backend's name and a problem as JSON. Everything that isn't the call (drawing inputs, preparing,
compiling, warming up) happens before the CUDA profiler is started, so that Nsight sees the call alone.
"""

from __future__ import annotations

import sys

from rls_bench.problems.problem import Problem

# Compiled backends compile on the first call, and autotuned ones choose.
_WARM_UPS = 3


def command(backend: str, problem: Problem) -> list[str]:
    """The command line that makes one call of ``backend`` on ``problem``."""
    import msgspec

    return [sys.executable, "-m", "rls_bench.probes.one_call", backend, msgspec.json.encode(problem).decode()]


def main(backend: str, problem_json: str) -> None:
    """Make the call; a backend that cannot run here raises, and the process ends with 1."""
    import msgspec

    from rls_bench.backends import registry

    kernel = registry.get(backend)
    problem = msgspec.json.decode(problem_json, type=Problem)

    import torch

    from rls_bench.problems import draw
    from rls_bench.timing import training

    call = training.prepared(kernel, draw.draw(problem))
    for _ in range(_WARM_UPS):
        call()
    if not problem.device.startswith("cuda"):
        call()
        return
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
