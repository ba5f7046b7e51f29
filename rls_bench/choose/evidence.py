"""What the records of one machine say about each problem: who may be chosen, at what cost, and who may not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np

from rls_bench.machines.machine import Machine
from rls_bench.policy import file as policy_file
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Record

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
    """One backend on one problem: a list of nanoseconds a call for each launch; the other figures may be unknown."""

    launches: list[list[float]] = field(default_factory=list)
    error: float | None = None
    joules: float | None = None
    peak_bytes: int | None = None
    compile_seconds: float | None = None

    @cached_property
    def latency_ns(self) -> float:
        """Geometric mean of the launches' medians."""
        return float(np.exp(np.mean([np.log(np.median(samples)) for samples in self.launches])))


@dataclass
class Cell:
    """One problem: ``candidates`` agreed, were timed and keep the limits; ``refused`` says why each other one isn't."""

    problem: Problem
    candidates: dict[str, Candidate] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    noise_floor: float = 0.0


@dataclass
class Evidence:
    """All cells of one machine with one set of versions, and where they came from."""

    machine: Machine
    cells: list[Cell]
    commits: tuple[str, ...]
    suites: tuple[str, ...]


def gather(records: Iterable[Record], limits: Limits | None = None, question: Question = "warm") -> list[Evidence]:
    """The evidence of each machine. The A/A twin's launches and those of repeated runs count as one backend's."""
    machines: dict[tuple[str | None, ...], list[Record]] = {}
    for entry in records:
        machines.setdefault(tuple(policy_file.validity(entry.machine).values()), []).append(entry)
    return [_of_machine(found, limits or Limits(), question) for found in machines.values()]


def _of_machine(records: list[Record], limits: Limits, question: Question) -> Evidence:
    cells: dict[Problem, Cell] = {}
    for entry in records:
        if entry.backend != FLOOR:
            problem = replace(entry.problem, name="", seed=0)
            _add(cells.setdefault(problem, Cell(problem)), entry, question)
    for cell in cells.values():
        for name, candidate in list(cell.candidates.items()):
            if reason := _breach(candidate, limits):
                cell.refused[name] = reason
            if name in cell.refused:
                del cell.candidates[name]
    commits = dict.fromkeys(entry.commit for entry in records if entry.commit)
    suites = dict.fromkeys(entry.suite for entry in records if entry.suite)
    return Evidence(records[-1].machine, list(cells.values()), tuple(commits), tuple(suites))


def _add(cell: Cell, entry: Record, question: Question) -> None:
    cell.noise_floor = max(cell.noise_floor, entry.noise_floor or 0.0)
    launches = [samples for samples in entry.samples_ns.get(question, []) if samples and min(samples) > 0]
    if entry.status != "ok":
        cell.refused[entry.backend] = f"{entry.status}: {entry.reason}" if entry.reason else entry.status
        return
    cell.refused.pop(entry.backend, None)
    if not launches:
        if entry.backend not in cell.candidates:
            cell.refused[entry.backend] = f"no {question} latency" + (f": {entry.reason}" if entry.reason else "")
        return
    found = cell.candidates.setdefault(entry.backend, Candidate())
    found.launches += launches
    found.error = _most(found.error, entry.agreement.error if entry.agreement else None)
    found.peak_bytes = _most(found.peak_bytes, entry.peak_bytes)
    found.compile_seconds = _most(found.compile_seconds, entry.compile_seconds)
    joules = entry.probes.get("nvml", {}).get("joules_per_call")
    found.joules = _most(found.joules, joules if isinstance(joules, float) else None)


def _most(one: Figure | None, other: Figure | None) -> Figure | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _breach(candidate: Candidate, limits: Limits) -> str:
    """Which limit the candidate breaks; an unknown figure keeps no limit."""
    if limits.max_error is not None:
        if candidate.error is None:
            return "error not measured"
        if candidate.error > limits.max_error:
            return f"error {candidate.error:.2g} above {limits.max_error:.2g}"
    if limits.max_bytes is not None:
        if candidate.peak_bytes is None:
            return "memory not measured"
        if candidate.peak_bytes > limits.max_bytes:
            return f"{candidate.peak_bytes / 2**20:,.0f} MiB above {limits.max_bytes / 2**20:,.0f} MiB"
    return ""
