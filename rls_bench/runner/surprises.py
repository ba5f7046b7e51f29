"""A cell's last turn in a launch: a call on queries that its worker never saw, judged, and held against the others."""

from __future__ import annotations

import os
import secrets
import time
from statistics import median

from rls_bench.referee import novelty
from rls_bench.referee.contents import Contents
from rls_bench.runner import messages
from rls_bench.runner.cell import Cell
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.process import WorkerLost

# Short calls run up to their stride first, lest sleeping threads and empty caches be taken for work.
_RUN_UP_NS = 2_000_000
_MOST_RUN_UP = 8


class Surprises:
    """Asks for them. Nobody who works for a backend ever learns by what salt new queries are drawn."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._secret = secrets.token_hex(8)

    def take(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """One for each cell that may be named the fastest; whoever is slow in every try has kept results."""
        for cell in cells:
            if cell.is_open and not cell.raced and cell.label in crew.pids():
                self._try(crew, launch, cell)

    def _try(self, crew: Crew, launch: int, cell: Cell) -> None:
        complaint = ""
        for number in range(novelty.MOST_TRIES):
            self._course.limit.check()
            warm = cell.samples.get("warm", {}).get(launch, [])
            is_careful = number or not warm or cell.problem.device != "cpu"
            calls = novelty.CAREFUL_CALLS if is_careful else int(min(_MOST_RUN_UP, _RUN_UP_NS // median(warm)))
            if (reply := self._ask(crew, launch, cell, calls, number)) is None:
                return
            seen_ns = max(reply.seen_ns, median(warm) if warm else 0)
            if not (complaint := novelty.complaint(seen_ns, reply.unseen_ns, cell.problem.device)):
                return
        self._course.close(crew, cell, "failed", complaint)

    def _ask(self, crew: Crew, launch: int, cell: Cell, calls: int, number: int) -> messages.Surprised | None:
        """The worker's answer, judged; None where that has ended the cell."""
        salt = f"{self._secret} {number}"
        contents = Contents(self._course.seed(launch, cell), number % 2)
        memory, layout = self._course.drawn_unseen(self._course.request(crew, cell), salt)
        began = time.monotonic()
        try:
            reply = crew.ask(cell.label, messages.Surprise(layout, contents, calls), memory)
        except WorkerLost as lost:
            self._course.lost([cell], lost, time.monotonic() - began)
            return None
        finally:
            os.close(memory)
        assert isinstance(reply, messages.Surprised)
        self._course.ledger.sampled(reply.calls_ns)
        if reply.status != "ok":
            self._course.close(crew, cell, reply.status, reply.reason)
            return None
        judged = self._course.judge(crew, cell, contents.of(0), 0, unseen=salt)
        if not judged.passed:
            self._course.close(crew, cell, "wrong", f"a call on new queries: {judged.reason}")
            return None
        return reply
