"""Reads one side of a comparison: every launch of every cell of a results file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.record import SCHEMA, Question, Status


class Key(NamedTuple):
    """One cell: the same work (a problem's key) by the same backend; ``machine`` is its fingerprint."""

    machine: str
    work: str
    backend: str


@dataclass
class Cell:
    """What one side knows of a cell; ``status`` and ``reason`` are the latest record's.

    ``title`` names the problem. ``log_medians`` holds, for each question, one natural logarithm of median nanoseconds
    a launch; the A/A twin's launches count too, since they ran the same code.
    """

    title: str
    status: Status
    reason: str
    log_medians: dict[Question, list[float]] = field(default_factory=dict)
    noise_floor: float = 0.0

    @property
    def timed(self) -> dict[Question, list[float]]:
        """Launches by question; speed exists only while the backend is right."""
        return self.log_medians if self.status == "ok" else {}


@dataclass(frozen=True)
class Source:
    """One side: where it came from, and its cells. ``machines`` is by fingerprint."""

    path: Path
    commits: tuple[str, ...]
    runs: tuple[str, ...]
    machines: dict[str, Machine]
    cells: dict[Key, Cell]
    skipped: int

    @property
    def commit(self) -> str:
        """The commit measured, or all of them; "unknown" where the run was outside a repository."""
        return ", ".join(commit[:12] for commit in self.commits) or "unknown"


class _Line(msgspec.Struct, gc=False):
    """The fields of a record that a comparison needs; machine and problem stay bytes, since they repeat."""

    schema: int
    run: str
    machine: msgspec.Raw
    problem: msgspec.Raw
    backend: str
    status: Status
    reason: str = ""
    commit: str | None = None
    dirty: bool = False
    samples_ns: dict[Question, list[list[float]]] = {}
    noise_floor: float | None = None


_LINE = msgspec.json.Decoder(_Line)
_PROBLEM = msgspec.json.Decoder(Problem)
_MACHINE = msgspec.json.Decoder(Machine)


def load(path: Path, *, across_machines: bool = False) -> Source:
    """Every cell of the results file ``path``; lines that cannot be read are counted and left out.

    ``across_machines`` leaves the machine and the device out of a cell's identity. Raises RecordError where the file
    cannot be opened or holds no record.
    """
    side = _Side(across_machines)
    skipped, first_reason = 0, ""
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    side.add(_LINE.decode(line))
                except (msgspec.MsgspecError, ValueError) as error:
                    skipped, first_reason = skipped + 1, first_reason or str(error)
    except OSError as error:
        raise RecordError(f"results file {path}: cannot be read ({error.strerror})") from error
    if not side.cells:
        bad = f"; {skipped} lines could not be read, the first: {first_reason}" if skipped else ""
        raise RecordError(f"results file {path}: wanted at least one record; got none{bad}")
    side.spread_noise_floors()
    hardware = {fingerprint: machine for machine, fingerprint in side.machines.values()}
    return Source(path, tuple(side.commits), tuple(side.cells_of_run), hardware, side.cells, skipped)


class _Side:
    """What a file holds so far."""

    def __init__(self, across_machines: bool) -> None:
        self.across_machines = across_machines
        self.commits: dict[str, None] = {}
        self.machines: dict[bytes, tuple[Machine, str]] = {}
        self.works: dict[bytes, tuple[str, str]] = {}
        self.cells: dict[Key, Cell] = {}
        self.cells_of_run: dict[str, list[Cell]] = {}
        self.floors: dict[str, float] = {}

    def add(self, line: _Line) -> None:
        if line.schema != SCHEMA:
            raise ValueError(f"schema {line.schema}; this version reads {SCHEMA}")
        work, title = self._work(bytes(line.problem))
        fingerprint = self._fingerprint(bytes(line.machine))
        key = Key("" if self.across_machines else fingerprint, work, line.backend)
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = Cell(title, line.status, line.reason)
        cell.status, cell.reason = line.status, line.reason
        for question, launches in line.samples_ns.items():
            if medians := _log_medians(launches):
                cell.log_medians.setdefault(question, []).extend(medians)
        if line.commit:
            self.commits[line.commit + ("+changes" if line.dirty else "")] = None
        self.cells_of_run.setdefault(line.run, []).append(cell)
        if line.noise_floor is not None:
            self.floors[line.run] = max(self.floors.get(line.run, 0.0), line.noise_floor)

    def spread_noise_floors(self) -> None:
        """A run's floor holds for all its cells, though only later lines may carry it."""
        for run, floor in self.floors.items():
            for cell in self.cells_of_run[run]:
                cell.noise_floor = max(cell.noise_floor, floor)

    def _work(self, raw: bytes) -> tuple[str, str]:
        if raw not in self.works:
            problem = _PROBLEM.decode(raw)
            work = replace(problem, device="") if self.across_machines else problem
            self.works[raw] = work.key, problem.title
        return self.works[raw]

    def _fingerprint(self, raw: bytes) -> str:
        if raw not in self.machines:
            machine = _MACHINE.decode(raw)
            self.machines[raw] = machine, machine.fingerprint
        return self.machines[raw][1]


def _log_medians(launches: list[list[float]]) -> list[float]:
    """One a launch: sorting a few numbers here costs less than handing them to numpy."""
    medians = []
    for samples in launches:
        ordered = sorted(samples)
        count = len(ordered)
        if count and ordered[0] > 0:
            medians.append(math.log((ordered[count // 2] + ordered[(count - 1) // 2]) / 2))
    return medians
