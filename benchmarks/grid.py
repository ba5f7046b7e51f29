"""What the suites of latency share: one run of the main job's runner feeds every figure, nothing is timed here.

Axes are written out, not asked of the machine, so that a host without a GPU keeps the history of one that has it; what
a machine or a kernel lacks shows as n/a.
"""

from abc import ABC, abstractmethod

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
    """Backends against lengths. A suite defines ``params``, ``problem`` and, for asv tells caches apart by the line
    that they are written on, a ``setup_cache`` that returns ``records()``.
    """

    params = (BACKENDS, [1024])
    param_names = ("backend", "sequence_length")
    timeout = 1200
    version = "1"
    budget_seconds = 60.0

    @abstractmethod
    def problem(self, length, device):
        """The problem at one point of the length axis."""

    def records(self):
        """Records of the whole grid by (backend, length): agreement first, then backends in turns."""
        import tempfile
        from pathlib import Path

        import torch

        from rls_bench import runner

        device = "cuda" if torch.cuda.is_available() else "cpu"
        backends, lengths = self.params
        problems = {length: self.problem(length, device) for length in lengths}
        plan = runner.Plan(
            problems=list(problems.values()), backends=backends, suite="asv", budget_seconds=self.budget_seconds
        )
        with tempfile.TemporaryDirectory() as folder:
            records = runner.run(plan, Path(folder) / "asv.jsonl").records
        length_of = {problem.key: length for length, problem in problems.items()}
        return {(r.backend, length_of[r.problem.key]): r for r in records if r.label == r.backend}

    def setup(self, records, backend, length):
        """Skip what this machine or kernel cannot do; a backend that is wrong or broken fails instead."""
        record = records[backend, length]
        if record.status in ("unavailable", "unsupported"):
            raise NotImplementedError(record.reason)
        if record.status != "ok":
            raise RuntimeError(f"{record.status}: {record.reason}")

    def track_latency(self, records, backend, length):
        """Samples of the warm latency, which asv treats as its own timings: interval and Mann-Whitney test."""
        launches = records[backend, length].samples_ns.get("warm", [])
        samples = [sample_ns / 1e9 for launch in launches for sample_ns in launch]
        return {"samples": samples, "number": 1} if samples else float("nan")

    track_latency.unit = "seconds"

    def track_error(self, records, backend, length):
        """Error against the float64 oracle, relative."""
        return records[backend, length].agreement.error

    track_error.unit = "relative"

    def track_compile(self, records, backend, length):
        """What preparing and the first call take beyond a later call."""
        seconds = records[backend, length].compile_seconds
        return float("nan") if seconds is None else seconds

    track_compile.unit = "seconds"

    def track_peak_memory(self, records, backend, length):
        """Inputs, output and workspace of one call."""
        peak_bytes = records[backend, length].peak_bytes
        return float("nan") if peak_bytes is None else peak_bytes

    track_peak_memory.unit = "bytes"
