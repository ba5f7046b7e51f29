"""Timing: rounds of turns of all labels on one problem, in drawn order, each turn judged and held against our clock."""

from __future__ import annotations

import os
import random
import time

from rls_bench.records.record import Question
from rls_bench.referee.contents import Contents
from rls_bench.runner import journal, kin, messages
from rls_bench.runner.board import backend_of
from rls_bench.runner.cell import Cell, race
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.process import WorkerLost
from rls_bench.runner.quiet import Quiet
from rls_bench.runner.sense import Clocks
from rls_bench.runner.surprises import Surprises

# A turn is about this long where samples are shorter, so that handing out turns costs little.
_TURN_SECONDS = 0.03
_MOST_PER_TURN = 5
# Waits for a throttled clock to recover, one after each turn that it spoilt; then the cell is given up.
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_WARMUP_NS = 300_000_000
_HURRIED_WARMUP_NS = 50_000_000
_SETTLE_SECONDS = 5.0


class Turns:
    """All turns of a run: what one launch learns of how long a cell's samples take, the next goes by."""

    warmup_ns = _WARMUP_NS
    most_per_turn = _MOST_PER_TURN

    def __init__(self, course: Course) -> None:
        self._course = course
        self._surprises = Surprises(course)
        self._sample_seconds: dict[tuple[Cell, Question], float] = {}
        self._rejections: dict[tuple[Cell, Question], int] = {}
        self._clocks: dict[Cell, Clocks] = {}
        # What is named after the fact must not be known before it.
        self._draw = random.SystemRandom()

    def take(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """Rounds of turns in seeded random order, until no cell wants more or this slice's share of time is gone."""
        plan = self._course.plan
        if not cells:
            return
        order = random.Random(f"{plan.seed} {launch} {cells[0].index}")
        quiet = Quiet(crew.pids())
        quiet.settle(min(_SETTLE_SECONDS, self._course.limit.left()))
        deadline = self._course.ledger.slice_deadline()
        while True:
            self._course.limit.check()
            late = self._course.ledger.was_hurried = time.monotonic() >= deadline
            turns = self.next_turns(crew, launch, cells, late)
            if not turns:
                if (disturber := quiet.last_disturber()) is None:
                    self._surprises.take(crew, launch, cells)
                    return
                quiet = self._quieten(crew, launch, cells[0].index, disturber)
                continue
            self.shuffle(turns, order)
            for cell, question in turns:
                if cell.is_open:
                    self._turn(crew, launch, cell, question, late)
                    if (disturber := quiet.disturber(cell.label)) is not None:
                        quiet = self._quieten(crew, launch, cell.index, disturber)
                        break
            if plan.race:
                for lost in race(cells, launch):
                    self._course.tell("closed", "raced out: slower than 1.5 × the best", lost)

    def look(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """The least number of samples of each cell's first question, in drawn order."""
        Quiet(crew.pids()).settle(min(_SETTLE_SECONDS, self._course.limit.left()))
        while turns := [
            (cell, question)
            for cell, question in self.next_turns(crew, launch, cells, late=True)
            if question == cell.questions[0]
        ]:
            self._draw.shuffle(turns)
            for cell, question in turns:
                self._course.limit.check()
                self._turn(crew, launch, cell, question, late=True)

    def next_turns(self, crew: Crew, launch: int, cells: list[Cell], late: bool) -> list[tuple[Cell, Question]]:
        """Who takes a turn in the next round."""
        return [
            (cell, question)
            for cell in cells
            for question in cell.questions
            if question not in crew.unanswered.get(cell.label, ())
            and cell.wants(question, launch, self._course.plan.target_interval, late)
        ]

    def shuffle(self, turns: list[tuple[Cell, Question]], order: random.Random) -> None:
        """Put a round's turns into the order in which they are taken."""
        order.shuffle(turns)

    def _quieten(self, crew: Crew, launch: int, index: int, disturber: str) -> Quiet:
        """End a backend that works in others' turns, and have all turns of this problem taken anew without it."""
        crew.discard(disturber)
        backend = backend_of(disturber)
        why = f"it kept working between its turns, on {self._course.plan.problems[index].title}"
        for cell in [*self._course.board.of_label(backend), *self._course.board.twin_cells()]:
            if cell.backend == backend and cell.is_open:
                self._course.end(cell, "failed", why)
        self._course.note(journal.Redone(index, launch))
        quiet = Quiet(crew.pids())
        quiet.settle(min(_SETTLE_SECONDS, self._course.limit.left()))
        return quiet

    def _turn(self, crew: Crew, launch: int, cell: Cell, question: Question, late: bool) -> None:
        seconds = self._sample_seconds.get((cell, question), _TURN_SECONDS)
        count = max(1, min(self.most_per_turn, round(_TURN_SECONDS / seconds)))
        contents = Contents(self._course.seed(launch, cell), self._draw.randrange(2))
        request = messages.Sample(question, count, _HURRIED_WARMUP_NS if late else self.warmup_ns, contents)
        waited_ns = -self._waited_ns(crew, cell)
        began_ns = time.monotonic_ns()
        try:
            reply = crew.ask(cell.label, request)
        except WorkerLost as lost:
            self._course.lost([cell], lost, (time.monotonic_ns() - began_ns) / 1e9)
            return
        wall_ns = time.monotonic_ns() - began_ns
        waited_ns += self._waited_ns(crew, cell)
        assert isinstance(reply, messages.Sampled)
        self._course.ledger.sampled(reply.calls_ns)
        if reply.status != "ok":
            self._course.close(crew, cell, reply.status, reply.reason)
            return
        if not reply.samples_ns:
            crew.unanswered.setdefault(cell.label, set()).add(question)
            return
        if complaint := self._clocks_of(cell).complaint(request, reply, wall_ns, waited_ns):
            self._course.close(crew, cell, "failed", complaint)
            return
        named = self._draw.choice(reply.handed)
        judged = self._course.judge(crew, cell, contents.of(named.which, named.steps), named.slot)
        if not judged.passed:
            self._course.close(crew, cell, "wrong", f"a timed call: {judged.reason}")
            return
        if self._course.watch is not None and (why := self._course.watch.held_down(reply.began_ns, reply.ended_ns)):
            self._reject(crew, launch, cell, question, len(reply.samples_ns), why)
            return
        self._rejections.pop((cell, question), None)
        taken = len(reply.samples_ns) + len(reply.warmup_ns)
        self._sample_seconds[cell, question] = max(1e-6, (reply.ended_ns - reply.began_ns) / 1e9 / taken)
        self._course.note(
            journal.Took(cell.label, cell.index, launch, question, reply.samples_ns, reply.warmup_ns, note=reply.noise)
        )
        self._course.tell("sampled", question, cell)

    def _waited_ns(self, crew: Crew, cell: Cell) -> int:
        """How long the worker and this process have waited for a core so far."""
        return kin.waited_ns(crew.pids().get(cell.label, 0)) + kin.waited_ns(os.getpid())

    def _clocks_of(self, cell: Cell) -> Clocks:
        if cell not in self._clocks:
            self._clocks[cell] = Clocks(cell.problem, os.cpu_count() or 1)
        return self._clocks[cell]

    def _reject(self, crew: Crew, launch: int, cell: Cell, question: Question, count: int, why: str) -> None:
        """Count samples that a throttled clock spoilt, and wait longer each time for it to recover."""
        self._course.note(journal.Took(cell.label, cell.index, launch, question, [], rejected=count))
        tries = self._rejections[cell, question] = self._rejections.get((cell, question), 0) + 1
        if tries <= len(_PAUSES_SECONDS):
            self._course.limit.sleep(_PAUSES_SECONDS[tries - 1])
        elif cell.launches(question):
            crew.unanswered.setdefault(cell.label, set()).add(question)
        else:
            self._course.end(cell, "throttled", f"every sample was taken while {why}")
