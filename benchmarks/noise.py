"""Laws of noise with a known truth, and the records of runs drawn from them; no clock is read.

A law gives logarithms of latency, [cells, launches, samples]. The truth of each is 0 (``centre`` where it isn't).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# One run, as the runner makes it: nine problems with four backends each, the first of which has a twin.
CELLS = 36
# Laws in which every run of the same code has the same truth, and those in which a run or a cell is moved as a whole.
STEADY = ("iid1", "iid5", "launch0.5", "launch1", "launch2", "launch3", "heavy", "bimodal", "ar", "common", "twospeed")
STEADY += ("onewild", "skewed", "unlike", "quant", "drift")
SHIFTED = ("runshift", "cellshift")


def draw(rng: np.random.Generator, law: str, cells: int, launches: int, samples: int = 12, start: float = 0.0) -> Any:
    """Log offsets; ``start`` is when the run began, in launches."""
    shape = (cells, launches, samples)
    normal = rng.standard_normal

    def scatter(between: float, within: float) -> Any:
        return between * normal((cells, launches, 1)) + within * normal(shape)

    if law.startswith("iid"):
        return scatter(0.0, float(law[3:]) / 100)
    if law.startswith("launch"):
        return scatter(float(law[6:]) / 100, 0.003)
    if law == "heavy":
        # One sample in twenty takes three times as long.
        return scatter(0.005, 0.01) + math.log(3) * (rng.random(shape) < 0.05)
    if law == "skewed":
        # Launches are delayed, never hurried.
        return 0.01 * rng.exponential(size=(cells, launches, 1)) + 0.005 * normal(shape)
    if law == "unlike":
        # One cell in four scatters by 3 %, the others by 0.3 %.
        spread = np.where(np.arange(cells) % 4 == 3, 0.03, 0.003)[:, None, None]
        return spread * normal((cells, launches, 1)) + 0.003 * normal(shape)
    if law == "drift":
        when = start + np.arange(launches)[None, :, None] + np.arange(samples)[None, None, :] / samples
        return scatter(0.005, 0.01) + 0.01 * when
    if law == "bimodal":
        # Every second sample is 10 % slower.
        return scatter(0.003, 0.005) + 0.10 * (rng.random(shape) < 0.5)
    if law == "ar":
        steps = normal(shape)
        found = np.empty(shape)
        found[..., 0] = steps[..., 0]
        for place in range(1, samples):
            found[..., place] = 0.95 * found[..., place - 1] + math.sqrt(1 - 0.95**2) * steps[..., place]
        return 0.02 * found
    if law == "quant":
        # The clock's step is 1 % of the latency.
        offset = 0.01 * rng.random((cells, 1, 1))
        return np.log(np.round((1 + offset + 0.001 * normal(shape)) / 0.01) * 0.01) - np.log(1 + offset)
    if law == "common":
        # A launch moves all cells together.
        return scatter(0.003, 0.005) + 0.02 * normal((1, launches, 1))
    if law == "twospeed":
        # One launch in ten is 8 % slower.
        return scatter(0.003, 0.005) + 0.08 * (rng.random((cells, launches, 1)) < 0.1)
    if law == "onewild":
        # One launch of one cell takes three times as long.
        found = scatter(0.004, 0.01)
        found[-1, rng.integers(launches)] += math.log(3)
        return found
    if law == "runshift":
        return scatter(0.005, 0.01) + 0.015 * normal()
    if law == "cellshift":
        # Where its memory lies moves each cell for a whole run.
        return scatter(0.005, 0.01) + 0.015 * normal((cells, 1, 1))
    raise ValueError(f"law: wanted one of {', '.join((*STEADY, *SHIFTED))}; got {law}")


def centre(law: str, samples: int = 12) -> float:
    """The mean of a launch's log median under ``law``."""
    if law in ("quant", "drift"):
        return 0.0
    # Many launches rather than many cells: what a launch does to all cells, no number of cells averages away.
    return float(np.median(draw(np.random.default_rng(99), law, 5, 20_000, samples), axis=2).mean())


def problem(length: int = 1024, **sizes: Any) -> Any:
    """A square prefill of ``length``."""
    from rls_bench.problems.problem import Problem

    usual = {"batch": 1, "query_heads": 8, "kv_heads": 8, "head_dim": 64, "value_dim": 64}
    return Problem(**{**usual, "query_length": length, "key_length": length, **sizes})


def machine(cpu_model: str = "drawn") -> Any:
    """The machine that all drawn runs are on, or another."""
    from rls_bench.machines.machine import Machine

    return Machine(cpu_model, ("avx2",), 2, 2, 24 << 30, "Linux", "3.11", "2.13.0")


def record(backend: str, work: Any, launches: Any, **fields: Any) -> Any:
    """A record that is ok, with warm launches."""
    from rls_bench.records.record import Agreement, Record

    usual = {
        "run": "run",
        "created": "2026-01-01T00:00:00Z",
        "machine": machine(),
        "label": backend,
        "status": "ok",
        "commit": "a" * 40,
        "agreement": Agreement(2e-3, 2e-3, 1.0, True),
        "samples_ns": {"warm": launches} if launches else {},
    }
    return Record(problem=work, backend=backend, **(usual | fields))


def suite(
    rng: np.random.Generator,
    law: str,
    launches: int,
    *,
    slower: dict[int, float] | None = None,
    offsets: Any = None,
    start: float = 0.0,
    twins: str = "own",
    **fields: Any,
) -> list[Any]:
    """A run's records; ``slower`` maps a cell to its factor, ``offsets`` replaces what the law would draw.

    ``twins`` meet launches of their "own", the "shared" ones of their backend, or don't exist ("").
    """
    from rls_bench.records.statistics import noise_floor

    drawn = draw(rng, law, CELLS, launches, start=start) if offsets is None else offsets
    records, pairs = [], []
    for cell in range(CELLS):
        work, backend = problem(64 * (1 + cell // 4)), f"backend-{cell % 4}"
        base_ns = 1e6 * (1 + cell) * (slower or {}).get(cell, 1.0)
        own = (base_ns * np.exp(drawn[cell])).tolist()
        records.append(record(backend, work, own, **fields))
        if cell % 4 == 0 and twins:
            met = np.median(drawn[cell], axis=1, keepdims=True) + 0.003 * rng.standard_normal(drawn[cell].shape)
            # A lone cell would always be the wild one.
            its_law = "launch0.4" if law == "onewild" else law
            other = met if twins == "shared" else draw(rng, its_law, 1, launches, start=start)[0]
            twin = (base_ns * np.exp(other)).tolist()
            records.append(record(backend, work, twin, label=backend + "#2", **fields))
            pairs.append((own, twin))
    floor = noise_floor(pairs)
    floors = {} if floor is None else {"warm": floor}
    return [replace(each, noise_floor=floor, noise_floors=floors) for each in records]


def write(path: Path, records: list[Any]) -> Path:
    """All records at once, as a results file."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    path.write_bytes(b"".join(encode(each) + b"\n" for each in records))
    return path


def cell_of(row: Any) -> int:
    """The cell's number, of a comparison's row."""
    return (int(row.problem.split("L")[1].split(" ")[0]) // 64 - 1) * 4 + int(row.backend[-1])
