"""A run under way: what it was asked, what is known by now, and the news of it that go to journal and display."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

from rls_bench.backends.words import one_line
from rls_bench.records.record import Agreement, Status
from rls_bench.referee.client import Referee
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Draw, Layout
from rls_bench.runner import journal, messages
from rls_bench.runner.board import Board
from rls_bench.runner.cell import Cell
from rls_bench.runner.crew import Crew
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.limit import Limit
from rls_bench.runner.outlook import Outlook
from rls_bench.runner.plan import Event
from rls_bench.runner.process import WorkerLost
from rls_bench.runner.throttle import ClockWatch

# Waits for one backend that come to nothing; it is asked no more.
_MOST_TIMEOUTS = 2

# Whoever has waited for less than this again has lost nothing by having waited for the whole.
_GLANCE_SECONDS = 20.0

EventKind = Literal["plan", "launch", "checked", "sampled", "closed"]


class Course:
    """What the parts of a session share; ``watch`` and ``referee`` are there once the run goes on."""

    def __init__(
        self,
        started: journal.Started,
        log: journal.Journal,
        board: Board,
        progress: Callable[[Event], None] | None,
        glances: bool = False,
    ) -> None:
        """``glances``: have ``progress`` told of the first problem before the end."""
        self.started = started
        self.plan = started.plan
        self.log = log
        self.board = board
        self.limit = Limit(math.inf if self.plan.limit_seconds is None else self.plan.limit_seconds)
        self.ledger = Ledger(self.plan.budget_seconds, self.plan.launches, len(self.plan.problems))
        self.outlook = Outlook(self.plan, self.ledger, self.limit)
        self.watch: ClockWatch | None = None
        self.referee: Referee | None = None
        self._progress = progress
        self._may_glance = glances and progress is not None
        self._timeouts: dict[str, int] = {}
        self._turns = 0

    def note(self, entry: journal.Entry) -> None:
        """Write down what happened, and take it in."""
        self.log.write(entry)
        self.board.apply(entry)

    def tell(self, kind: EventKind, message: str, cell: Cell | None = None) -> None:
        """Show the display what happened."""
        if self._progress is not None:
            label, problem = (cell.label, cell.problem) if cell else ("", None)
            self._progress(Event(kind, message, self.outlook.share_done(), label, problem))

    def wants_look(self, index: int) -> bool:
        """Whether to have a look at a problem before those compile that take long to, and to show what was seen."""
        on_cpu = self.plan.problems[index].device == "cpu"
        return self._may_glance and on_cpu and not self.plan.probes and self.outlook.is_worth_a_look(index)

    def glance(self, index: int, without: Sequence[str] = ()) -> None:
        """Show once what is known of a problem, where all of the run is still some time off.

        ``without``: the labels that have taken no turn yet, where it isn't a launch that is over but a look.
        """
        if not self._may_glance or self._progress is None:
            return
        self._may_glance = False
        ahead = self.outlook.seconds_ahead()
        records = self.board.so_far(self.started, index)
        if ahead < _GLANCE_SECONDS or not records:
            return
        # One launch has no interval, however many samples it took.
        what = f"launch 1 of {self.plan.launches}"
        if without:
            what = f"a first look, without {', '.join(without)}, which take longer to get ready"
        message = (
            f"{what}; there are no intervals yet, and nothing to choose by; the tables at the end, in about "
            f"{ahead:.0f} s, take its place"
        )
        event = Event("glance", message, self.outlook.share_done(), problem=self.plan.problems[index], records=records)
        self._progress(event)

    def end(self, cell: Cell, status: Status, reason: str) -> None:
        """Give a cell its status, unless it has one."""
        if cell.status is None:
            self.note(journal.Ended(cell.label, cell.index, status, one_line(reason)))
            self.tell("closed", f"{status}: {reason}", cell)

    def close(self, crew: Crew, cell: Cell, status: Status, reason: str) -> None:
        """End a cell that misbehaved, and its process with it: whatever it left behind goes, too."""
        crew.discard(cell.label)
        self.end(cell, status, reason)

    def lost(self, cells: list[Cell], lost: WorkerLost, waited_seconds: float = 0.0) -> None:
        """End cells whose worker is gone; where it was waited for in vain, those for which it would be once more."""
        for cell in cells:
            self.end(cell, lost.status, lost.reason)
        if lost.status != "timeout" or not cells:
            return
        # Nobody else's time is shorter for it.
        self.ledger.excuse(waited_seconds)
        backend, problem = cells[0].backend, cells[0].problem
        self._timeouts[backend] = self._timeouts.get(backend, 0) + 1
        for cell in [*self.board.of_label(backend), *self.board.twin_cells()]:
            again = cell.checked is None or self._timeouts[backend] >= _MOST_TIMEOUTS
            if cell.backend == backend and cell.is_open and again:
                self.end(cell, "timeout", f"not asked again after {problem.title}: {lost.reason}")

    def seed(self, launch: int, cell: Cell) -> str:
        """A seed that no turn of this or any other run has had."""
        self._turns += 1
        return f"{self.plan.seed} {self.started.run} {launch} {cell.label} {self._turns}"

    def request(self, crew: Crew, cell: Cell) -> Draw:
        """What is drawn for a cell: an excerpt is enough for what is never timed."""
        measurable = crew.measurable.get(cell.label, messages.Verdict(True))
        return Draw(cell.problem, self.started.run, excerpt=not measurable.yes)

    def drawn(self, request: Draw) -> tuple[int, Layout]:
        """A descriptor of a cell's inputs in sealed memory, and what lies where in it."""
        assert self.referee is not None
        began = time.monotonic()
        drawn = self.referee.draw(request)
        self.ledger.judged(time.monotonic() - began)
        return drawn

    def drawn_unseen(self, request: Draw, salt: str) -> tuple[int, Layout]:
        """As ``drawn``, of queries alone that no worker has seen."""
        assert self.referee is not None
        return self.referee.draw_unseen(request, salt)

    def judge(
        self, crew: Crew, cell: Cell, contents: Contents, slot: int, repeats: int | None = None, unseen: str = ""
    ) -> Agreement:
        """The referee's verdict on the result in a slot of the cell's tray."""
        assert self.referee is not None
        steers, tray = cell.label not in crew.unsteered, crew.tray(cell.label)
        return self.referee.judge(self.request(crew, cell), contents, tray, slot, steers, repeats, unseen)
