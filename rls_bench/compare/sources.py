"""Reads one side of a comparison: what every cell of a results file adds up to."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import lines
from rls_bench.records.record import (
    SCHEMA,
    UNREADABLE,
    Identity,
    Nanoseconds,
    Question,
    Share,
    Status,
    another,
    identity,
)
from rls_bench.records.standing import Entry, Evidence, Standing, entry_of, floors_of, standing


class Key(NamedTuple):
    """One cell: the same work (a problem's key) by the same backend; ``machine`` is its fingerprint."""

    machine: str
    work: str
    backend: str


class Cell(NamedTuple):
    """What one side knows of a cell; ``title`` names the problem.

    ``clock_mhz`` is what the SMs ran at while the cell was sampled by the probe nvml; read across machines alone.
    """

    title: str
    standing: Standing
    clock_mhz: float | None = None

    @property
    def timed(self) -> dict[Question, Evidence]:
        """Latencies by question; speed exists only while the backend is right."""
        return self.standing.evidence


@dataclass(frozen=True)
class Source:
    """One side: where it came from, and its cells. ``machines`` is by fingerprint, ``older`` commits were left out."""

    path: Path
    commits: tuple[str, ...]
    runs: tuple[str, ...]
    machines: dict[str, Machine]
    cells: dict[Key, Cell]
    skipped: int
    older: tuple[str, ...] = ()
    # The first line that was left out, and why.
    first_skipped: str = ""
    # What its runs were told of the machine while they measured.
    warnings: tuple[str, ...] = ()

    @property
    def commit(self) -> str:
        """The commit measured, or all of them; "unknown" where the run was outside a repository."""
        return ", ".join(commit[:12] for commit in self.commits) or "unknown"

    def title(self, machine: str) -> str:
        """The machine of a cell's key in words; where machines don't count, the only one's."""
        found = self.machines.get(machine) or next(iter(self.machines.values()))
        return found.title


class _Line(msgspec.Struct, gc=False):
    """The fields of a record that a comparison needs; machine and problem stay bytes, since they repeat."""

    schema: int
    run: str
    machine: msgspec.Raw
    problem: msgspec.Raw
    backend: str
    label: str
    status: Status
    created: str = ""
    reason: str = ""
    commit: str | None = None
    dirty: bool = False
    samples_ns: dict[Question, list[list[Nanoseconds]]] = {}
    noise_floor: Share | None = None
    noise_floors: dict[Question, Share] = {}
    warnings: list[str] = []
    probes: msgspec.Raw = msgspec.Raw(b"{}")


class _Clock(msgspec.Struct, frozen=True, gc=False):
    sm_clock_mhz: float | str | None = None


class _Probes(msgspec.Struct, gc=False):
    nvml: _Clock = _Clock()


_LINE = msgspec.json.Decoder(_Line)
_PROBLEM = msgspec.json.Decoder(Problem)
_MACHINE = msgspec.json.Decoder(Machine)
_PROBES = msgspec.json.Decoder(_Probes)


def load(path: Path, *, across_machines: bool = False) -> Source:
    """Every cell of the results file ``path``; lines that cannot be read are counted and left out.

    ``across_machines`` leaves the machine and the device out of a cell's identity. Raises RecordError where the file
    cannot be opened or holds no record.
    """
    side = _Side(across_machines)
    skipped, first_reason = 0, ""
    with lines.opened(path, newest=True) as found:
        for number, line in enumerate(found, start=1):
            if not line.strip():
                continue
            try:
                side.add(_LINE.decode(line), hash(line.strip()))
            except UNREADABLE as error:
                skipped, first_reason = skipped + 1, first_reason or f"line {number}: {error}"
    if not side.entries:
        bad = f"; {skipped} lines could not be read, first {first_reason}" if skipped else ""
        raise RecordError(f"results file {path}: wanted at least one record; got none{bad}")
    stands = {key: standing(entries) for key, entries in side.entries.items()}
    cells = {key: Cell(side.titles[key], found, side.clock(key, found.commit)) for key, found in stands.items()}
    commits = dict.fromkeys(cell.standing.commit for cell in cells.values() if cell.standing.commit)
    older = dict.fromkeys(commit for cell in cells.values() for commit in cell.standing.older if commit)
    older |= dict.fromkeys(commit for commit in lines.replaced(path) if commit)
    hardware = {fingerprint: machine for machine, fingerprint in side.machines.values()}
    return Source(
        path,
        tuple(commits),
        tuple(side.floors),
        hardware,
        cells,
        skipped,
        tuple(older),
        first_reason,
        tuple(side.warnings),
    )


class _Side:
    """What a file holds so far."""

    def __init__(self, across_machines: bool) -> None:
        self.across_machines = across_machines
        self.machines: dict[bytes, tuple[Machine, str]] = {}
        self.works: dict[bytes, tuple[str, str]] = {}
        self.titles: dict[Key, str] = {}
        self.entries: dict[Key, list[Entry]] = {}
        # A run's floors hold for all its cells, though only later lines may carry them: one dictionary for all.
        self.floors: dict[str, dict[Question, float]] = {}
        self.contents: dict[Identity, int] = {}
        self.warnings: dict[str, None] = {}
        # By cell and commit, MHz.
        self.clocks: dict[tuple[Key, str], list[float]] = {}

    def add(self, line: _Line, content: int) -> None:
        if line.schema != SCHEMA:
            raise ValueError(f"schema {line.schema}; this version reads {SCHEMA}")
        work, title = self._work(bytes(line.problem))
        fingerprint = self._fingerprint(bytes(line.machine))
        same = identity(line.run, line.label, line.status, work, bytes(line.machine))
        if (known := self.contents.get(same)) is not None:
            # Given twice, it is no more evidence.
            if known != content:
                raise ValueError(another(line.run, line.label, title))
            return
        self.contents[same] = content
        self.warnings.update(dict.fromkeys(line.warnings))
        key = Key("" if self.across_machines else fingerprint, work, line.backend)
        floors = self.floors.setdefault(line.run, {})
        for question, floor in floors_of(line).items():
            floors[question] = max(floors.get(question, 0.0), floor)
        self.titles[key] = title
        entry = entry_of(line, floors)
        self.entries.setdefault(key, []).append(entry)
        if self.across_machines:
            clock = _PROBES.decode(line.probes).nvml.sm_clock_mhz
            if isinstance(clock, float) and 0 < clock < math.inf:
                self.clocks.setdefault((key, entry.commit), []).append(clock)

    def clock(self, key: Key, commit: str) -> float | None:
        """The clock that a cell's records of ``commit`` were sampled at, in MHz."""
        found = self.clocks.get((key, commit))
        return statistics.median(found) if found else None

    def _work(self, raw: bytes) -> tuple[str, str]:
        if raw not in self.works:
            problem = _PROBLEM.decode(raw)
            problem.check()
            work = replace(problem, device="") if self.across_machines else problem
            self.works[raw] = work.key, problem.title
        return self.works[raw]

    def _fingerprint(self, raw: bytes) -> str:
        if raw not in self.machines:
            machine = _MACHINE.decode(raw)
            self.machines[raw] = machine, machine.fingerprint
        return self.machines[raw][1]
