"""Every cell of a run: which want another launch, and the records that come of them."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from rls_bench.errors import BackendUnavailable
from rls_bench.machines.machine import Machine
from rls_bench.records.record import Record
from rls_bench.records.statistics import noise_floor
from rls_bench.runner import journal
from rls_bench.runner.cell import Cell, stopped
from rls_bench.runner.plan import Plan

# Marks the second label of the backend that runs twice.
TWIN = "#2"


def backend_of(label: str) -> str:
    """The backend behind a label."""
    return label.removesuffix(TWIN)


class Board:
    """All cells, kept up to date by the journal's entries as they happen or as they are read back."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cells: dict[tuple[str, int], Cell] = {}
        self.machine: Machine | None = None
        self.twin: str | None = None
        self.last_launch = 0
        # Records of this run that the results file had before a resume.
        self.recorded: list[Record] = []
        for backend in plan.backends:
            self._add(backend, backend)

    def __getitem__(self, key: tuple[str, int]) -> Cell:
        """The cell of a label and a problem's index."""
        return self._cells[key]

    def of_label(self, label: str) -> list[Cell]:
        """The cells of one label, in the order of the problems."""
        return [cell for cell in self._cells.values() if cell.label == label]

    def twin_cells(self) -> list[Cell]:
        """The cells of the second label of the backend that runs twice."""
        return [] if self.twin is None else self.of_label(self.twin + TWIN)

    def apply(self, entry: journal.Entry) -> None:
        """Take in what happened."""
        if isinstance(entry, journal.Met):
            self.machine = entry.machine
        elif isinstance(entry, journal.Twinned):
            self.twin = entry.backend
            self._add(entry.backend + TWIN, entry.backend)
        else:
            if isinstance(entry, journal.Took):
                self.last_launch = max(self.last_launch, entry.launch)
            self._cells[entry.label, entry.problem].apply(entry)

    def mark_recorded(self, records: Iterable[Record]) -> None:
        """Leave out cells whose record is in the results file already."""
        for entry in records:
            self.recorded.append(entry)
            for cell in self._cells.values():
                if cell.label == entry.label and cell.problem == entry.problem:
                    cell.is_recorded = True

    def due(self, plan: Plan, spare_time: bool) -> list[Cell]:
        """The cells that the next launch measures: those short of launches, or, given time to spare, the unsure."""
        todo = [cell for cell in self._cells.values() if cell.is_open]
        short = [cell for cell in todo if cell.checked is None or cell.finished_launches() < plan.launches]
        if short or not spare_time:
            return short
        return [cell for cell in todo if not cell.raced and not cell.is_narrow(plan.target_interval)]

    def noise_floor(self) -> float | None:
        """The median over problems of the relative difference between the A/A pair's labels; None without a pair."""
        floors = [
            noise_floor(one, two)
            for index in range(len(self._plan.problems))
            if self.twin is not None
            and (one := self._cells[self.twin, index].ok_launches())
            and (two := self._cells[self.twin + TWIN, index].ok_launches())
        ]
        return median(floors) if floors else None

    def records(self, started: journal.Started, interrupted: bool) -> tuple[list[Record], int]:
        """A record for each cell that isn't in the results file yet, and how many cells were never reached."""
        floor = self.noise_floor()
        records, unreached = [], 0
        for cell in self._cells.values():
            if cell.is_recorded or (cell.label != cell.backend and cell.status in ("unsupported", "unavailable")):
                continue
            if cell.is_open and not cell.samples:
                unreached += 1
                continue
            if self.machine is None:
                raise BackendUnavailable(f"no backend's process came up; the first, {cell.label}: {cell.reason}")
            records.append(self._record(cell, started, self.machine, floor, interrupted))
        return records, unreached

    def _record(
        self, cell: Cell, started: journal.Started, machine: Machine, floor: float | None, interrupted: bool
    ) -> Record:
        checked, ok = cell.checked, cell.status is None
        shared = {
            "run": started.run,
            "created": started.created,
            "machine": machine,
            "problem": cell.problem,
            "backend": cell.backend,
            "label": cell.label,
            "status": cell.status or "ok",
            "reason": cell.reason or cell.note,
            "commit": started.commit,
            "dirty": started.dirty,
            "suite": self._plan.suite,
            "rejected": cell.rejected,
            "noise_floor": floor,
        }
        if checked is not None:
            shared |= {
                "agreement": checked.agreement,
                "compile_seconds": checked.compile_seconds,
                "peak_bytes": checked.peak_bytes,
                "workspace_bytes": checked.workspace_bytes,
                "kernels": checked.kernels,
                "probes": checked.probes,
            }
        if ok:
            shared |= {
                "samples_ns": {question: cell.launches(question) for question in cell.samples},
                "warmup_ns": [cell.warmups[launch] for launch in sorted(cell.warmups)],
                "stopped": stopped(cell, self._plan.target_interval, interrupted),
            }
        return Record(**shared)  # type: ignore[arg-type]

    def _add(self, label: str, backend: str) -> None:
        for index, problem in enumerate(self._plan.problems):
            self._cells[label, index] = Cell(label, backend, index, problem, self._plan.questions_for(problem))
