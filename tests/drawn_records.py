"""Records drawn from a model of real launches: processes differ, samples within one differ less."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement, Question, Record

CPU = Machine("AMD EPYC", ("avx2", "avx512f"), 2, 2, 24 << 30, "Linux 6.1", "3.11.2", "2.13.0", triton="3.7.1")
GPU = Machine(
    "AMD EPYC",
    ("avx2",),
    16,
    16,
    128 << 30,
    "Linux 6.1",
    "3.11.2",
    "2.13.0",
    triton="3.7.1",
    cuda="13.0",
    cudnn="91002",
    gpu_name="NVIDIA H100",
    gpu_uuid="GPU-1",
    gpu_arch="sm_90",
    gpu_count=1,
    gpu_memory_bytes=80 << 30,
    driver="580.1",
)
AGREED = Agreement(error=2e-3, floor=2e-3, ratio=1.0, passed=True)
# Between launches, within a launch, and how unlike cells are: standard deviations of the logarithm.
BETWEEN, WITHIN, UNLIKE = 0.005, 0.01, 0.3


def problem(length: int = 1024, **options: object) -> Problem:
    """Prefill of ``length`` tokens unless ``options`` say otherwise."""
    sizes = {"batch": 1, "query_heads": 8, "kv_heads": 8, "head_dim": 64, "value_dim": 64}
    fields = {**sizes, "query_length": length, "key_length": length, **options}
    return Problem(**fields)  # type: ignore[arg-type]


def launches(
    rng: np.random.Generator,
    centre_ns: float,
    *,
    count: int = 3,
    samples: int = 15,
    between: float = BETWEEN,
    within: float = WITHIN,
) -> list[list[float]]:
    """One list of nanoseconds for each of ``count`` processes."""
    offsets = between * rng.standard_normal((count, 1)) + within * rng.standard_normal((count, samples))
    return (centre_ns * np.exp(offsets)).tolist()  # type: ignore[no-any-return]


def record(
    backend: str,
    work: Problem,
    samples: list[list[float]] | dict[Question, list[list[float]]] | None = None,
    **fields: object,
) -> Record:
    """An ``ok`` record with warm latency, unless ``fields`` say otherwise."""
    if isinstance(samples, list):
        samples = {"warm": samples}
    values: dict[str, object] = {
        "run": "run-1",
        "created": "2026-01-01T00:00:00Z",
        "machine": CPU,
        "label": backend,
        "status": "ok",
        "commit": "a" * 40,
        "agreement": AGREED,
        "samples_ns": samples or {},
    }
    return Record(problem=work, backend=backend, **(values | fields))  # type: ignore[arg-type]


def run(
    seed: int,
    *,
    cells: int = 40,
    slower: dict[int, float] | None = None,
    count: int = 3,
    between: float = BETWEEN,
    **fields: object,
) -> list[Record]:
    """A whole run: ``cells`` cells, four backends on each problem; ``slower`` maps a cell's index to its factor."""
    rng = np.random.default_rng(seed)
    # How noisy a cell is belongs to the cell, and is the same in every run.
    unlike = np.exp(UNLIKE * np.random.default_rng(0).standard_normal(cells))
    drawn = []
    for index in range(cells):
        centre_ns = 1e6 * (1 + index) * (slower or {}).get(index, 1.0)
        samples = launches(rng, centre_ns, count=count, between=between * float(unlike[index]))
        drawn.append(record(f"backend-{index % 4}", problem(64 * (1 + index // 4)), samples, **fields))
    return drawn


def write(path: Path, records: Iterable[Record] | Sequence[Record]) -> Path:
    """All at once: record.append syncs every line, as a run must and a test need not."""
    encode = msgspec.json.Encoder().encode
    path.write_bytes(b"".join(encode(entry) + b"\n" for entry in records))
    return path
