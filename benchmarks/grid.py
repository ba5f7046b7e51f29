"""What the suites of latency share: one run of the main job's runner feeds every figure, nothing is timed here.

Axes are written out, not asked of the machine, so that a host without a GPU keeps the history of one that has it; what
a machine or a kernel lacks shows as n/a.

asv makes a cache once for each line that a ``setup_cache`` stands on. That of ``Grid`` stands on one line for all of
``SUITES``, so that one run measures them: its processes start, and its compilers work, once for all.
"""

import os
from abc import ABC, abstractmethod
from importlib import import_module

# Modules whose grids the run measures; RLS_BENCH_SUITES="prefill" leaves the others out, whose cells are n/a then.
SUITES = os.environ.get("RLS_BENCH_SUITES", "prefill decode options").split()

BACKENDS = [
    "cpu",
    "eager",
    "flex",
    "keyfold",
    "sdpa-cpu",
    "sdpa-cudnn",
    "sdpa-efficient",
    "sdpa-math",
    "triton",
    "unsteered",
    "valuefold",
]


class Grid(ABC):
    """Backends against lengths. A suite defines ``params`` and ``problem``; ``budget_seconds`` are what it adds to the
    run's time for sampling.
    """

    params = (BACKENDS, [1024])
    param_names = ("backend", "sequence_length")
    timeout = 1200
    version = "1"
    budget_seconds = 20.0

    @abstractmethod
    def problem(self, length, device):
        """The problem at one point of the length axis."""

    def setup_cache(self):
        """Records of all ``SUITES`` by (grid, backend, length)."""
        modules = [import_module(f"{__package__}.{name}") for name in SUITES]
        return records([grid() for module in modules for grid in _grids(module)])

    def setup(self, records, backend, length):
        """Skip what this machine or kernel cannot do; a backend that is wrong or broken fails instead."""
        record = self.record(records, backend, length)
        if record is None:
            raise NotImplementedError(f"left out by RLS_BENCH_SUITES={' '.join(SUITES)}")
        if record.status in ("unavailable", "unsupported"):
            raise NotImplementedError(record.reason)
        if record.status != "ok":
            raise RuntimeError(f"{record.status}: {record.reason}")

    def record(self, records, backend, length):
        """The record of one cell, or None."""
        return records.get((type(self).__name__, backend, length))

    def track_latency(self, records, backend, length):
        """Samples of the warm latency, which asv treats as its own timings: interval and Mann-Whitney test."""
        launches = self.record(records, backend, length).samples_ns.get("warm", [])
        samples = [sample_ns / 1e9 for launch in launches for sample_ns in launch]
        return {"samples": samples, "number": 1} if samples else float("nan")

    track_latency.unit = "seconds"

    def track_error(self, records, backend, length):
        """Error against the float64 oracle, relative."""
        return self.record(records, backend, length).agreement.error

    track_error.unit = "relative"

    def track_compile(self, records, backend, length):
        """What preparing and the first call take beyond a later call."""
        seconds = self.record(records, backend, length).compile_seconds
        return float("nan") if seconds is None else seconds

    track_compile.unit = "seconds"

    def track_peak_memory(self, records, backend, length):
        """Inputs, output and workspace of one call."""
        peak_bytes = self.record(records, backend, length).peak_bytes
        return float("nan") if peak_bytes is None else peak_bytes

    track_peak_memory.unit = "bytes"


def records(grids):
    """Records of all ``grids`` by (grid, backend, length): agreement first, then backends in turns."""
    import tempfile
    from pathlib import Path

    import torch

    from rls_bench import runner

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cells = [(grid, length) for grid in grids for length in grid.params[1]]
    problems = {(type(grid).__name__, length): grid.problem(length, device) for grid, length in cells}
    plan = runner.Plan(
        problems=list(problems.values()),
        backends=sorted({backend for grid in grids for backend in grid.params[0]}),
        suite="asv",
        budget_seconds=sum(grid.budget_seconds for grid in grids),
        # Nothing else is tracked.
        questions=("warm",),
        aa=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        found = {(r.problem.key, r.backend): r for r in runner.run(plan, Path(folder) / "asv.jsonl").records}
    return {
        (grid, backend, length): found[problem.key, backend]
        for (grid, length), problem in problems.items()
        for backend in plan.backends
    }


def _grids(module):
    """The grids that ``module`` itself defines."""
    return [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
