"""Before any timing: every label prepares a problem, and its first results are judged."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

from msgspec.structs import replace

from rls_bench.records.record import Agreement
from rls_bench.referee.contents import Contents
from rls_bench.runner import journal, messages
from rls_bench.runner.cell import Cell
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.process import WorkerLost

# The least that a cell needs to be timed at all, for each question: once its warm-up, and some calls.
_TURN_SECONDS = 0.3
_TURN_CALLS = 8
# Calls of a check: three that are judged, and one for each further set of inputs and look.
_CHECK_CALLS = 6


class Checks:
    """The checks of one launch, by the workers of ``crew``."""

    def __init__(self, course: Course, crew: Crew, launch: int) -> None:
        self._course = course
        self._crew = crew
        self._launch = launch

    def prepare(self, cells: list[Cell], ready: Mapping[str, int] | None = None) -> dict[str, int]:
        """Have each worker check its cell: what a call took in nanoseconds, by label, where it is to be timed, beside
        those that are ``ready`` already.

        Compilers and interpreters work beside the others, for nothing is timed meanwhile. Where others measure as they
        prepare, by probes or, on a GPU, by tuning, they work alone.
        """
        on_cpu = all(cell.problem.device == "cpu" for cell in cells)
        beside = not self._crew.alone and not self._course.plan.probes and on_cpu
        slow = [cell for cell in cells if beside and self._crew.takes_long(cell.label, cell.index) and cell.is_open]
        quick = [cell for cell in cells if cell not in slow and cell.is_open]
        # Where time is short, the floor that all others are shown beside is not what is left out.
        quick.sort(key=lambda cell: cell.label not in self._crew.unsteered)
        call_ns = dict(ready or {})
        waiting = [(cell, asked) for cell in slow if (asked := self._tell_to_prepare(cell)) is not None]
        for cell in quick:
            if not self.has_time(call_ns, cell):
                continue
            if (asked := self._tell_to_prepare(cell)) is None or not self._in_time(call_ns, cell):
                continue
            if (took := self._prepared(cell, asked)) is not None:
                call_ns[cell.label] = took
        for cell, asked in waiting:
            if self._in_time(call_ns, cell) and (took := self._prepared(cell, asked, beside=True)) is not None:
                call_ns[cell.label] = took
        return call_ns

    def has_time(self, call_ns: dict[str, int], cell: Cell) -> bool:
        """Whether one more cell can be checked before those of ``call_ns`` must begin to take turns, going by them."""
        likely = _CHECK_CALLS * min(call_ns.values(), default=0) / 1e9
        return self._seconds_left(call_ns, cell) > likely

    def _seconds_left(self, call_ns: dict[str, int], cell: Cell) -> float:
        """Until those that are ready must begin to take turns, lest the limit leaves them none."""
        turns = sum(_TURN_SECONDS + _TURN_CALLS * took / 1e9 for took in call_ns.values())
        return self._course.limit.left() - len(cell.questions) * turns

    def _in_time(self, call_ns: dict[str, int], cell: Cell) -> bool:
        """Whether a cell answers while there is time for it; one that doesn't is left out of this launch."""
        seconds = self._seconds_left(call_ns, cell)
        if seconds == math.inf or self._crew.answers(cell.label, seconds):
            return True
        self._crew.discard(cell.label)
        return False

    def _tell_to_prepare(self, cell: Cell) -> messages.Prepare | None:
        """Ask for the first calls and don't wait; None where nobody is there to be asked."""
        measurable = self._crew.measurable.get(cell.label, messages.Verdict(True))
        # The twin is another process of a backend that has agreed, as a later launch is.
        checked = cell.checked or self._course.board[cell.backend, cell.index].checked
        # A cell that was raced out takes one sample more, and has no use for distinct inputs.
        input_bytes = 0 if cell.raced else self._course.plan.input_bytes
        # Saliency changes between the two calls, whatever the seed.
        first, second = (Contents(self._course.seed(self._launch, cell), bias) for bias in (0, 1))
        memory, layout = self._course.drawn(self._course.request(self._crew, cell))
        request = messages.Prepare(
            layout, (first, second), measurable.yes, input_bytes, self._course.plan.probes, thorough=checked is None
        )
        try:
            self._crew.tell(cell.label, request, memory)
        except WorkerLost as lost:
            self._course.lost([cell], lost)
            return None
        finally:
            os.close(memory)
        return request

    def _prepared(self, cell: Cell, request: messages.Prepare, beside: bool = False) -> int | None:
        """Take in the answer to ``request``, and have it judged: what a call took in nanoseconds, or None where it is
        not to be timed. ``beside``: it was worked on while others were asked."""
        began = time.monotonic()
        try:
            reply = self._crew.reply(cell.label)
        except WorkerLost as lost:
            self._course.lost([cell], lost, time.monotonic() - began)
            return None
        assert isinstance(reply, messages.Prepared)
        if beside:
            # Of work that overlaps, only the wait for it is wall time.
            self._course.ledger.checked(0, time.monotonic() - began)
        else:
            self._course.ledger.checked(reply.calls_ns, reply.compile_seconds)
        judged = self._judge_first(cell, request, reply.handed)
        if cell.checked is None:
            measurable = self._crew.measurable.get(cell.label, messages.Verdict(True))
            known = self._course.board[cell.backend, cell.index].checked
            learnt = _checked(cell, reply, judged, measurable, cell.label not in self._crew.unsteered)
            self._course.note(learnt if known is None else replace(known, label=cell.label))
        # What else was seen explains a result that isn't right.
        if reply.status == "ok" and judged is not None and not judged.passed:
            self._course.close(self._crew, cell, "wrong", judged.reason)
            return None
        if reply.status != "ok":
            self._course.close(self._crew, cell, reply.status, reply.reason)
            if reply.status == "unavailable":
                # What this machine lacks it lacks for every problem, and a compiler that fails takes its time.
                for other in self._course.board.of_label(cell.label):
                    if other.checked is None:
                        self._course.end(other, reply.status, reply.reason)
            return None
        self._course.tell("checked", "agrees with the oracle", cell)
        return reply.call_ns if cell.is_open else None

    def _judge_first(self, cell: Cell, request: messages.Prepare, handed: int) -> Agreement | None:
        """The verdict on the first results handed over: the first that isn't right, or else the very first."""
        began = time.monotonic()
        first, second = request.contents
        asked = [(first, None), (second, None), (second, 1)][:handed]
        verdicts = [
            self._course.judge(self._crew, cell, contents, slot, again) for slot, (contents, again) in enumerate(asked)
        ]
        self._course.ledger.judged(time.monotonic() - began)
        return next((verdict for verdict in verdicts if not verdict.passed), verdicts[0] if verdicts else None)


def _checked(
    cell: Cell, reply: messages.Prepared, judged: Agreement | None, measurable: messages.Verdict, steers: bool
) -> journal.Checked:
    """What the first launch learnt of a cell; the note becomes the reason of a record that is ok."""
    untimed = f"no latency: {measurable.reason}; agreement checked on an excerpt"
    notes = ["" if measurable.yes else untimed, reply.noise]
    return journal.Checked(
        label=cell.label,
        problem=cell.index,
        agreement=judged,
        compile_seconds=reply.compile_seconds,
        peak_bytes=reply.peak_bytes,
        workspace_bytes=reply.workspace_bytes,
        kernels=reply.kernels,
        probes=reply.probes,
        measurable=measurable.yes,
        note="; ".join(note for note in notes if note),
        settings=reply.settings,
        steers=steers,
    )
