"""Latency and error of every backend against sequence length.

One run of the main job's runner, agreement first and backends in turns, feeds every figure: nothing is timed here.
Axes are written out, not asked of the machine, so that a host without a GPU keeps the history of one that has it; what
a machine lacks shows as n/a.
"""

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
SEQUENCE_LENGTHS = [256, 1024]


class Prefill:
    """B1 H8 D64 in float32, not causal."""

    params = (BACKENDS, SEQUENCE_LENGTHS)
    param_names = ("backend", "sequence_length")
    timeout = 1200
    version = "1"

    def setup_cache(self):
        """Records of the whole grid by (backend, sequence length)."""
        import tempfile
        from pathlib import Path

        import torch

        from rls_bench import runner
        from rls_bench.problem import Problem

        device = "cuda" if torch.cuda.is_available() else "cpu"
        problems = [Problem(1, 8, 8, length, length, 64, 64, device=device) for length in SEQUENCE_LENGTHS]
        plan = runner.Plan(problems=problems, backends=BACKENDS, suite="asv", budget_seconds=60.0)
        with tempfile.TemporaryDirectory() as folder:
            records = runner.run(plan, Path(folder) / "asv.jsonl").records
        return {(r.backend, r.problem.key_length): r for r in records if r.label == r.backend}

    def setup(self, records, backend, sequence_length):
        """Skip what this machine or kernel cannot do; a backend that is wrong or broken fails instead."""
        record = records[backend, sequence_length]
        if record.status in ("unavailable", "unsupported"):
            raise NotImplementedError(record.reason)
        if record.status != "ok":
            raise RuntimeError(f"{record.status}: {record.reason}")

    def track_latency(self, records, backend, sequence_length):
        """Samples of the warm latency, which asv treats as its own timings: interval and Mann-Whitney test."""
        launches = records[backend, sequence_length].samples_ns.get("warm", [])
        samples = [sample_ns / 1e9 for launch in launches for sample_ns in launch]
        return {"samples": samples, "number": 1} if samples else float("nan")

    track_latency.unit = "seconds"

    def track_error(self, records, backend, sequence_length):
        """Error against the float64 oracle, relative."""
        return records[backend, sequence_length].agreement.error

    track_error.unit = "relative"
