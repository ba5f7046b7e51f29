"""Every cell of a run: which want another launch, and the records that come of them."""

from __future__ import annotations

from collections.abc import Iterable

from rls_bench.errors import BackendUnavailable
from rls_bench.machines.machine import Machine
from rls_bench.records.record import Question, Record
from rls_bench.records.statistics import noise_floor
from rls_bench.runner import journal
from rls_bench.runner.cell import Cell, looks, narrow, shared_launches, stopped
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

    @property
    def cells(self) -> list[Cell]:
        """All of them, the first label's first."""
        return list(self._cells.values())

    def of_label(self, label: str) -> list[Cell]:
        """The cells of one label, in the order of the problems."""
        return [cell for cell in self._cells.values() if cell.label == label]

    def twin_cells(self) -> list[Cell]:
        """The cells of the second label of the backend that runs twice."""
        return [] if self.twin is None else self.of_label(self.twin + TWIN)

    def has_twin(self) -> bool:
        """Whether a backend runs twice; one whose second label has failed on every problem no longer does."""
        return any(cell.status is None for cell in self.twin_cells())

    def apply(self, entry: journal.Entry) -> None:
        """Take in what happened."""
        if isinstance(entry, journal.Met):
            self.machine = entry.machine
        elif isinstance(entry, journal.Twinned):
            self.twin = entry.backend
            self._add(entry.backend + TWIN, entry.backend)
        elif isinstance(entry, journal.Redone):
            for cell in self._cells.values():
                if cell.index == entry.problem:
                    cell.forget(entry.launch)
        else:
            if isinstance(entry, journal.Took):
                self.last_launch = max(self.last_launch, entry.launch)
            cell = self._cells[entry.label, entry.problem]
            cell.apply(entry)
            if isinstance(entry, journal.Ended) and cell.samples:
                # Nobody has lost a race against what has fallen.
                for other in self._cells.values():
                    if other.index == cell.index:
                        other.raced, other.raced_in = False, 0

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
        sure = self.narrow()
        return [cell for cell in todo if not cell.raced and cell not in sure]

    def narrow(self) -> set[Cell]:
        """The cells whose every question is answered within the plan's target."""
        right = [cell for cell in self._cells.values() if not cell.status]
        return narrow(right, self._plan.target_interval, self._plan.launches)

    def noise_floors(self) -> dict[Question, float]:
        """For each question, how far the labels of the A/A pair may differ; empty without a pair that was timed."""
        twins = [cell for cell in self.twin_cells() if not cell.status]
        mains = {cell: self._cells[cell.backend, cell.index] for cell in twins}
        floors: dict[Question, float] = {}
        for question in dict.fromkeys(question for cell in twins for question in cell.samples):
            pairs = [shared_launches(main, twin, question) for twin, main in mains.items() if not main.status]
            if (floor := noise_floor([pair for pair in pairs if pair[0]])) is not None:
                floors[question] = floor
        return floors

    def noise_floor(self) -> float | None:
        """That of the question that backends are compared by."""
        floors = self.noise_floors()
        main = next(iter(self._cells.values())).main
        return floors.get(main)

    def so_far(self, started: journal.Started, index: int) -> list[Record]:
        """What is known of one problem while the run goes on, without what only its end can tell: noise floors, and why
        sampling stopped. Empty where nothing was timed yet."""
        cells = [cell for cell in self._cells.values() if cell.index == index and cell.label == cell.backend]
        known = [cell for cell in cells if cell.samples or not cell.is_open]
        if self.machine is None or not any(cell.samples for cell in known):
            return []
        return [self._record(cell, started, self.machine, {}, "") for cell in known]

    def records(self, started: journal.Started, interrupted: bool) -> tuple[list[Record], int]:
        """A record for each cell that isn't in the results file yet, and how many cells were never reached."""
        floors, sure = self.noise_floors(), self.narrow()
        records, unreached = [], 0
        for cell in self._cells.values():
            if cell.is_recorded or (cell.label != cell.backend and cell.status in ("unsupported", "unavailable")):
                continue
            if cell.is_open and not cell.samples:
                unreached += 1
                continue
            if self.machine is None:
                raise BackendUnavailable(f"no backend's process came up; the first, {cell.label}: {cell.reason}")
            records.append(self._record(cell, started, self.machine, floors, stopped(cell, cell in sure, interrupted)))
        return records, unreached

    def _record(
        self, cell: Cell, started: journal.Started, machine: Machine, floors: dict[Question, float], why_stopped: str
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
            "commit_unknown": started.commit_unknown,
            "suite": self._plan.suite,
            "rejected": cell.rejected,
            "noise_floor": floors.get(cell.main),
            "noise_floors": floors,
        }
        if checked is not None:
            shared |= {
                "agreement": checked.agreement,
                "compile_seconds": checked.compile_seconds,
                "peak_bytes": checked.peak_bytes,
                "workspace_bytes": checked.workspace_bytes,
                "kernels": checked.kernels,
                "probes": checked.probes,
                "settings": checked.settings,
                "steers": checked.steers,
            }
        if ok:
            shared |= {
                "samples_ns": {question: taken for question in cell.samples if (taken := cell.launches(question))},
                "warmup_ns": [cell.warmups[launch] for launch in sorted(cell.warmups)],
                "stopped": why_stopped,
                "looks": looks(len(cell.launches(cell.main)), self._plan.launches),
            }
        return Record(**shared)  # type: ignore[arg-type]

    def _add(self, label: str, backend: str) -> None:
        for index, problem in enumerate(self._plan.problems):
            self._cells[label, index] = Cell(label, backend, index, problem, self._plan.questions_for(problem))
