"""What the records of one machine say about each problem: who may be chosen, at what cost, and who may not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from rls_bench.machines.machine import Machine
from rls_bench.policy import file as policy_file
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Record
from rls_bench.records.standing import entry_of, standing
from rls_bench.records.statistics import Estimate, estimates

Figure = TypeVar("Figure", int, float)
Objective = Literal["latency", "energy", "error"]
# Plain attention is the floor that steering is compared to; it steers nothing and is never a choice.
FLOOR = "unsteered"


@dataclass(frozen=True)
class Limits:
    """What a choice must keep: relative error against float64, and bytes at the peak; None sets no limit."""

    max_error: float | None = None
    max_bytes: int | None = None


@dataclass
class Candidate:
    """One backend on one problem: its latency in logarithms of nanoseconds; the other figures may be unknown.

    ``launches`` are processes, of all runs together. One that was ``raced`` out is slower than some other for certain,
    and its few samples name no winner.
    """

    latency: Estimate
    launches: int
    error: float | None = None
    joules: float | None = None
    peak_bytes: int | None = None
    compile_seconds: float | None = None
    raced: bool = False

    @property
    def latency_ns(self) -> float:
        """Geometric mean of the launches' medians."""
        return math.exp(self.latency.mean)


@dataclass
class Cell:
    """One problem: ``candidates`` agreed, were timed and keep the limits; ``refused`` says why each other one isn't,
    and ``beyond`` are those of them that break a limit.

    ``weight`` is how much its regret counts beside others': 1, or its share of a workload's time in any unit.
    """

    problem: Problem
    candidates: dict[str, Candidate] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    beyond: set[str] = field(default_factory=set)
    noise_floor: float = 0.0
    weight: float = 1.0


@dataclass
class Evidence:
    """All cells of one machine with one set of versions, and where they came from; ``older`` commits were left out."""

    machine: Machine
    cells: list[Cell]
    commits: tuple[str, ...]
    suites: tuple[str, ...]
    older: tuple[str, ...] = ()


def gather(records: Iterable[Record], limits: Limits | None = None, question: Question = "warm") -> list[Evidence]:
    """The evidence of each machine: of each cell the newest commit's, all its runs and labels together."""
    machines: dict[tuple[str | None, ...], list[Record]] = {}
    for entry in records:
        machines.setdefault(tuple(policy_file.validity(entry.machine).values()), []).append(entry)
    return [_of_machine(found, limits or Limits(), question) for found in machines.values()]


def _of_machine(records: list[Record], limits: Limits, question: Question) -> Evidence:
    cells: dict[Problem, Cell] = {}
    told: dict[tuple[Problem, str], list[Record]] = {}
    for entry in records:
        if entry.backend != FLOOR and entry.steers:
            problem = replace(entry.problem, name="", seed=0)
            cells.setdefault(problem, Cell(problem))
            told.setdefault((problem, entry.backend), []).append(entry)
    stands = {key: standing([entry_of(entry) for entry in entries]) for key, entries in told.items()}
    timed = {key: found.evidence[question] for key, found in stands.items() if question in found.evidence}
    latencies = estimates(
        {key: found.units for key, found in timed.items()},
        {key: found.blur for key, found in timed.items()},
        # Runs scatter by more than launches do.
        {key: found.launches == len(found.units) for key, found in timed.items()},
    )
    for key, found in stands.items():
        cell, name = cells[key[0]], key[1]
        if found.status != "ok":
            cell.refused[name] = f"{found.status}: {found.reason}" if found.reason else found.status
        elif key in timed and not math.isfinite(latencies[key].mean + timed[key].floor):
            cell.refused[name] = f"its {question} latency, or the run's noise floor, is no number"
        elif key not in timed:
            cell.refused[name] = f"no {question} latency" + (f": {found.reason}" if found.reason else "")
        else:
            newest = [entry for entry in told[key] if entry_of(entry).commit == found.commit]
            candidate = _candidate(latencies[key], timed[key].launches, newest)
            cell.noise_floor = max(cell.noise_floor, timed[key].floor)
            if reason := _breach(candidate, limits):
                cell.refused[name] = reason
                cell.beyond.add(name)
            else:
                cell.candidates[name] = candidate
    commits = dict.fromkeys(found.commit for found in stands.values() if found.commit)
    older = dict.fromkeys(commit for found in stands.values() for commit in found.older if commit)
    suites = dict.fromkeys(entry.suite for entry in records if entry.suite)
    return Evidence(records[-1].machine, list(cells.values()), tuple(commits), tuple(suites), tuple(older))


def _candidate(latency: Estimate, launches: int, entries: list[Record]) -> Candidate:
    """The other figures are the greatest of all records: a limit must hold in each."""
    joules = [entry.probes.get("nvml", {}).get("joules_per_call") for entry in entries]
    timed = [entry for entry in entries if entry.samples_ns]
    return Candidate(
        latency,
        launches,
        error=_most(entry.agreement.error for entry in entries if entry.agreement),
        joules=_most(value for value in joules if isinstance(value, float)),
        peak_bytes=_most(entry.peak_bytes for entry in entries),
        compile_seconds=_most(entry.compile_seconds for entry in entries),
        raced=bool(timed) and all(entry.stopped == "raced" for entry in timed),
    )


def _most(values: Iterable[Figure | None]) -> Figure | None:
    # NaN is not the greatest, and compares with nothing.
    return max((value for value in values if value is not None and value == value), default=None)


def _breach(candidate: Candidate, limits: Limits) -> str:
    """Which limit the candidate breaks; an unknown figure keeps no limit."""
    if limits.max_error is not None:
        if candidate.error is None:
            return "error not measured"
        if not candidate.error <= limits.max_error:
            return f"error {candidate.error:.2g} above {limits.max_error:.2g}"
    if limits.max_bytes is not None:
        if candidate.peak_bytes is None:
            return "memory not measured"
        if not candidate.peak_bytes <= limits.max_bytes:
            return f"{candidate.peak_bytes / 2**20:,.0f} MiB above {limits.max_bytes / 2**20:,.0f} MiB"
    return ""
