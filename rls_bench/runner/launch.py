"""One launch: its workers start and say what they can do, then go through the problems one by one."""

from __future__ import annotations

from rls_bench.runner import journal, messages
from rls_bench.runner.board import TWIN, backend_of
from rls_bench.runner.cell import Cell
from rls_bench.runner.checks import Checks
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.process import NurseryLost, WorkerLost
from rls_bench.runner.turns import Turns

# A label that was asked when all workers were lost is asked again by a fresh one, as the others are; but only so often.
_MOST_COLLAPSES = 2


class Launch:
    """The launch numbered ``number`` of a run, with a crew of its own."""

    def __init__(self, course: Course, crew: Crew, turns: Turns, number: int) -> None:
        self._course = course
        self._crew = crew
        self._turns = turns
        self._number = number
        self._checks = Checks(course, crew, number)
        self._collapses: dict[str, int] = {}

    def start(self, labels: list[str]) -> None:
        """Start workers side by side, for importing is most of it, and close the cells that they cannot do."""
        for label in labels:
            self._crew.start(label, backend_of(label))
        answers = self._introduced()
        for label, answer in answers.items():
            cells = self._course.board.of_label(label)
            if isinstance(answer, WorkerLost):
                self._course.lost(cells, answer)
                continue
            for cell in cells:
                supports = answer.supports[cell.index]
                for verdict in (answer.available, answer.measurable, supports):
                    if verdict.failed:
                        self._course.end(cell, "failed", verdict.reason)
                if not answer.available.yes:
                    self._course.end(cell, "unavailable", answer.available.reason)
                elif not supports.yes:
                    self._course.end(cell, "unsupported", supports.reason)

    def _introduced(self) -> dict[str, messages.Introduction | WorkerLost]:
        request = messages.Introduce(self._course.plan.problems)
        answers: dict[str, messages.Introduction | WorkerLost] = {}
        while True:
            self._course.limit.check()
            try:
                return answers | self._crew.introduce(request)
            except NurseryLost:
                answers |= self._collapsed()

    def _collapsed(self) -> dict[str, WorkerLost]:
        """All workers are gone at once: begin again with fresh ones; who was asked each time is to blame, by label."""
        busy = self._crew.busy
        blamed = {}
        for label in busy:
            self._collapses[label] = self._collapses.get(label, 0) + 1
            if self._collapses[label] >= _MOST_COLLAPSES and len(busy) == 1:
                why = "the process that workers are started from ended each time that it was asked: it ended its parent"
                blamed[label] = WorkerLost("failed", why)
        self._crew.renew(alone=True, without=blamed)
        return blamed

    def go_through(self, cells: list[Cell]) -> None:
        """One problem in one launch: prepare and check each label, then take turns; again where all were lost."""
        look = self._course.wants_look(cells[0].index)
        while open_cells := [cell for cell in cells if cell.is_open]:
            self._course.limit.check()
            try:
                self._slice_once(open_cells, self._look(open_cells) if look else {})
                return
            except NurseryLost:
                for label, lost in self._collapsed().items():
                    self._course.lost(self._course.board.of_label(label), lost)
                self._course.note(journal.Redone(cells[0].index, self._number))
                look = False

    def _look(self, cells: list[Cell]) -> dict[str, int]:
        """Prepare those that don't compile for long, and show what a few turns say of them: what a call took in
        nanoseconds, by label.

        The turns don't count: the others weren't among them.
        """
        quick = [cell for cell in cells if cell.label not in self._crew.slow]
        with self._course.ledger.checking(thorough=True):
            call_ns = self._checks.prepare(quick)
        with self._course.ledger.taking_turns():
            self._turns.look(self._crew, self._number, [cell for cell in quick if cell.label in call_ns])
        self._course.glance(cells[0].index, [cell.label for cell in cells if cell not in quick])
        self._course.note(journal.Redone(cells[0].index, self._number))
        return call_ns

    def _slice_once(self, cells: list[Cell], prepared: dict[str, int]) -> None:
        """``prepared``: the labels that are so already, as ``_look`` returns them."""
        with self._course.ledger.checking(thorough=any(cell.checked is None for cell in cells)):
            call_ns = self._checks.prepare([cell for cell in cells if cell.label not in prepared], prepared)
            twin = self._course.plan.aa and not self._course.board.has_twin() and call_ns
            if twin and self._checks.has_time(call_ns, cells[0]):
                cells = [*cells, self._start_twin(call_ns, cells[0].index)]
                call_ns |= self._checks.prepare(cells[-1:])
        self._course.outlook.share_anew(self._number, cells[0].index)
        with self._course.ledger.taking_turns():
            ready = [cell for cell in cells if cell.is_open and cell.label in call_ns]
            self._turns.take(self._crew, self._number, ready)
        for label, lost in self._crew.release(cell.label for cell in cells).items():
            reason = f"lost as it let go of {self._course.plan.problems[cells[0].index].title}: {lost.reason}"
            self._course.lost([cell for cell in cells if cell.label == label], WorkerLost(lost.status, reason))

    def _start_twin(self, call_ns: dict[str, int], index: int) -> Cell:
        """Choose the backend that runs twice, of those that can do most of the problems the quickest, and start it."""
        open_cells = {label: sum(cell.is_open for cell in self._course.board.of_label(label)) for label in call_ns}
        most = max(open_cells.values())
        backend = min((label for label in call_ns if open_cells[label] == most), key=lambda label: call_ns[label])
        self._course.note(journal.Twinned(backend))
        self.start([backend + TWIN])
        return self._course.board[backend + TWIN, index]
