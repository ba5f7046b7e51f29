"""One table of everything measured: a row for each record and question, with intervals and × unsteered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from rls_bench.machines.machine import Machine
from rls_bench.policy import file as policy_file
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.records.latency import Latencies
from rls_bench.records.record import Question, Record, Skipped
from rls_bench.records.statistics import Estimate, Interval, Launches
from rls_bench.report.palette import FLOOR, Look, look

# Probe figures that become columns: column -> probe and its figure.
PROBED = {
    "joules": ("nvml", "joules_per_call"),
    "l2_hit_rate_percent": ("ncu", "l2_hit_rate_percent"),
    "model_l2_hit_rate_percent": ("model", "l2_hit_rate_percent"),
    "llc_hit_rate_percent": ("perf", "llc_hit_rate_percent"),
    "ceiling_tflop_per_s": ("roofline", "ceiling_tflop_per_s"),
    "ceiling_gb_per_s": ("roofline", "ceiling_gb_per_s"),
    "peak_percent": ("roofline", "peak_percent"),
}


@dataclass(frozen=True)
class Results:
    """Everything read: ``frame`` has all rows, ``latest`` those that no later record of the same cell replaced."""

    paths: tuple[Path, ...]
    records: list[Record]
    machines: dict[str, Machine]
    frame: pd.DataFrame
    latest: pd.DataFrame
    skipped: list[Skipped]
    look: Look


def read(paths: Sequence[Path]) -> Results:
    """Results of all ``paths`` together; unreadable lines are kept with their reasons.

    Raises RecordError where a file cannot be opened or none holds a record.
    """
    skipped: list[Skipped] = []
    records = record.read_all(paths, skipped)
    if not records:
        raise record.none_in(paths, skipped)
    # The later run replaces, whichever file it lies in.
    records.sort(key=lambda entry: entry.created)
    names = _machine_names(records)
    latencies = Latencies(records)
    floors = _floors(records, names, latencies)
    problems: dict[Problem, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for entry in records:
        if entry.problem not in problems:
            problems[entry.problem] = _of_problem(entry.problem)
        shared = _of_record(entry, names[entry.machine]) | problems[entry.problem]
        if not entry.samples_ns:
            rows.append(shared)
        for question, launches in entry.samples_ns.items():
            floor = floors.get((names[entry.machine], _work(entry.problem), question))
            rows.append(shared | {"question": question} | _of_latency(entry, question, launches, latencies, floor))
    frame = pd.DataFrame(rows).reindex(columns=_COLUMNS)
    frame[_NUMBERS] = frame[_NUMBERS].astype(float)
    latest = frame.drop_duplicates(["machine", "work", "label", "question"], keep="last")
    machines = {name: machine for machine, name in names.items()}
    return Results(tuple(paths), records, machines, frame, latest, skipped, look(frame["backend"]))


def _machine_names(records: Sequence[Record]) -> dict[Machine, str]:
    """A title for each machine; one that was measured with several versions says which."""
    machines = list(dict.fromkeys(entry.machine for entry in records))
    names: dict[Machine, str] = {}
    for machine in machines:
        alike = [other for other in machines if other.title == machine.title]
        held = [policy_file.validity(other) for other in alike]
        differ = [field for field in held[0] if len({other[field] for other in held}) > 1]
        words = [f"{field} {policy_file.validity(machine)[field]}" for field in differ]
        names[machine] = machine.title + (f" ({', '.join(words)})" if words else "")
    return names


def _floors(
    records: Sequence[Record], names: dict[Machine, str], latencies: Latencies
) -> dict[tuple[str, Problem, str], Estimate]:
    """What plain attention takes, by machine, work and question."""
    return {
        (names[entry.machine], _work(entry.problem), question): latency
        for entry in records
        if entry.backend == FLOOR and entry.label == FLOOR
        for question in entry.samples_ns
        if (latency := latencies.estimate(entry, question)) is not None
    }


def _work(problem: Problem) -> Problem:
    return replace(problem, name="")


def _of_problem(problem: Problem) -> dict[str, Any]:
    """What a problem says in columns; ``family`` is all of it but the lengths and λ."""
    kind = policy_file.kind(problem)
    heads = f"{problem.query_heads}" + (f"/{problem.kv_heads}" if problem.kv_heads != problem.query_heads else "")
    dims = f"{problem.head_dim}" + (f"/{problem.value_dim}" if problem.value_dim != problem.head_dim else "")
    moved_bytes = problem.input_bytes + problem.output_bytes
    return {
        "work": problem.key,
        "problem": problem.title,
        "family": f"{kind.title}, B{problem.batch} H{heads} D{dims}",
        "regime": problem.regime,
        "dtype": problem.dtype,
        "device": problem.device,
        "batch": problem.batch,
        "query_heads": problem.query_heads,
        "kv_heads": problem.kv_heads,
        "query_length": problem.query_length,
        "key_length": problem.key_length,
        "head_dim": problem.head_dim,
        "value_dim": problem.value_dim,
        "is_causal": problem.is_causal,
        "eps": problem.eps,
        "strength": problem.strength,
        "flops": problem.flops,
        "intensity_flop_per_byte": problem.flops / moved_bytes,
    }


def _of_record(entry: Record, machine: str) -> dict[str, Any]:
    agreement = entry.agreement
    return {
        "machine": machine,
        "generation": entry.machine.generation,
        "backend": entry.backend,
        "label": entry.label,
        "status": entry.status,
        "reason": entry.reason,
        "run": entry.run,
        "created": entry.created,
        "commit": entry.commit or "",
        "suite": entry.suite,
        "error": agreement.error if agreement else None,
        "error_floor": agreement.floor if agreement else None,
        "error_ratio": agreement.ratio if agreement else None,
        "compile_seconds": entry.compile_seconds,
        "peak_bytes": entry.peak_bytes,
        "workspace_bytes": entry.workspace_bytes,
        "noise_floor": entry.noise_floor,
        "rejected": entry.rejected,
        "stopped": entry.stopped,
        "question": "",
        **{column: _number(entry.probes.get(probe, {}).get(figure)) for column, (probe, figure) in PROBED.items()},
    }


def _of_latency(
    entry: Record, question: Question, launches: Launches, latencies: Latencies, floor: Estimate | None
) -> dict[str, Any]:
    """Median and × unsteered with 95 % intervals, where they are known; nothing where there is no usable sample."""
    latency, estimate = latencies.interval(entry, question), latencies.estimate(entry, question)
    if latency is None or estimate is None:
        return {}
    measured = [samples for samples in launches if samples and min(samples) > 0]
    columns = {
        "latency_ns": latency.median,
        **_ends("low_ns", "high_ns", latency),
        "launches": len(measured),
        "samples": sum(map(len, measured)),
        "tflop_per_s": entry.problem.flops / latency.median / 1e3,
    }
    if floor is None or entry.backend == FLOOR:
        return columns
    ratio = estimate.over(floor).interval()
    return columns | {"unsteered_ratio": ratio.median, **_ends("ratio_low", "ratio_high", ratio)}


def _ends(low: str, high: str, interval: Interval) -> dict[str, float]:
    return {low: interval.low, high: interval.high} if interval.is_known else {}


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


_WORDS = ["machine", "backend", "label", "status", "reason", "problem", "family", "question", "suite", "run", "created"]
_WORDS += ["generation", "commit", "stopped", "work", "regime", "dtype", "device", "is_causal"]
_NUMBERS = [
    "batch",
    "query_heads",
    "kv_heads",
    "query_length",
    "key_length",
    "head_dim",
    "value_dim",
    "eps",
    "strength",
]
_NUMBERS += ["latency_ns", "low_ns", "high_ns", "launches", "samples", "rejected", "noise_floor"]
_NUMBERS += [
    "unsteered_ratio",
    "ratio_low",
    "ratio_high",
    "error",
    "error_floor",
    "error_ratio",
    "flops",
    "tflop_per_s",
]
_NUMBERS += ["intensity_flop_per_byte", "compile_seconds", "peak_bytes", "workspace_bytes", *PROBED]
_COLUMNS = _WORDS + _NUMBERS
