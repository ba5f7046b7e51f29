"""The coordinator: starts workers, hands out turns, journals what they answer, and writes the records.

It never imports torch, so that it starts at once and nothing of it runs while a worker is timed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from rls_bench.backends import registry
from rls_bench.errors import RecordError
from rls_bench.records import record
from rls_bench.records.record import Question, Status
from rls_bench.runner import journal, messages, provenance
from rls_bench.runner.board import TWIN, Board, backend_of
from rls_bench.runner.cell import Cell, race
from rls_bench.runner.crew import Crew
from rls_bench.runner.flips import flips
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.plan import Event, Plan, Summary
from rls_bench.runner.process import WorkerLost
from rls_bench.runner.throttle import ClockWatch
from rls_bench.timing import steadiness

# A turn is about this long where samples are shorter, so that handing out turns costs little.
_TURN_SECONDS = 0.03
_MOST_PER_TURN = 5
# Waits for a throttled clock to recover, one after each turn that it spoilt; then the cell is given up.
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_WARMUP_NS = 300_000_000
_HURRIED_WARMUP_NS = 50_000_000

EventKind = Literal["launch", "checked", "sampled", "closed"]


class Session:
    """One run, new or gone on with."""

    def __init__(
        self,
        started: journal.Started,
        log: journal.Journal,
        board: Board,
        out: Path,
        progress: Callable[[Event], None] | None,
    ) -> None:
        self._started = started
        self._plan = started.plan
        self._log = log
        self._board = board
        self._out = out
        self._progress = progress
        self._warnings: list[str] = []
        self._sample_seconds: dict[tuple[Cell, Question], float] = {}
        self._rejections: dict[tuple[Cell, Question], int] = {}
        self._watch: ClockWatch | None = None
        self._ledger = Ledger(self._plan.budget_seconds, self._plan.launches, len(self._plan.problems))

    @classmethod
    def open(cls, plan: Plan, out: Path, *, resume: bool, progress: Callable[[Event], None] | None) -> Session:
        """A session that is ready to run; see ``rls_bench.runner.run``."""
        for backend in plan.backends:
            registry.check_name(backend)
        if resume:
            return cls._resumed(plan, out, progress)
        run = provenance.run_id()
        commit, dirty = provenance.git_commit()
        started = journal.Started(run, provenance.utc_now(), plan, commit, dirty)
        log = journal.Journal(journal.beside(out, run))
        log.write(started)
        return cls(started, log, Board(plan), out, progress)

    @classmethod
    def _resumed(cls, plan: Plan, out: Path, progress: Callable[[Event], None] | None) -> Session:
        found = journal.abandoned(out)
        if found is None:
            raise RecordError(f"results file {out}: nothing to resume; no run that wrote to it was killed")
        log = journal.Journal(found)
        started, entries = journal.read(found)
        if started.plan != plan:
            raise RecordError(f"journal {found}: belongs to another plan; resume with the options it was started with")
        board = Board(plan)
        for entry in entries:
            board.apply(entry)
        # A run that was killed while it wrote its records has some of them in the file already.
        if out.exists():
            board.mark_recorded(entry for entry in record.read(out) if entry.run == started.run)
        return cls(started, log, board, out, progress)

    def run(self) -> Summary:
        """Measure until every cell has what it wants or the budget ends, then write the records."""
        interrupted = False
        before = steadiness.read([os.getpid()])
        try:
            self._measure()
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            self._log.close(remove=False)
            raise
        finally:
            if self._watch is not None:
                self._warnings += [complaint] if (complaint := self._watch.complaint()) else []
                self._watch.stop()
        # The workers' time is this process's own, once they are reaped.
        self._warnings += steadiness.complaints(before, steadiness.read([os.getpid()]), steadiness.clock_share())
        return self._finish(interrupted)

    def _measure(self) -> None:
        plan = self._plan
        while cells := self._board.due(plan, spare_time=self._ledger.affords_another_launch()):
            launch = self._board.last_launch + 1
            self._ledger.begin_launch()
            labels = list(dict.fromkeys(cell.label for cell in cells))
            twin_before = self._board.twin
            self._tell("launch", f"launch {launch}: starting {len(labels)} processes")
            # A driver that has been woken doesn't survive a fork.
            forks = all(problem.device == "cpu" for problem in plan.problems)
            with Crew(plan.timeout_seconds, plan.compile_timeout_seconds, forks) as crew:
                self._start(crew, labels)
                for index in range(len(plan.problems)):
                    due = [cell for cell in cells if cell.index == index and cell.is_open]
                    # The twin is chosen on the first problem, and takes part from there on.
                    if self._board.twin != twin_before:
                        due += [cell for cell in self._board.twin_cells() if cell.index == index and cell.is_open]
                    if due:
                        self._slice(crew, launch, due)
                    self._ledger.slice_done()
            self._board.last_launch = launch

    def _start(self, crew: Crew, labels: list[str]) -> None:
        """Start workers side by side, for importing is most of it, and close the cells that they cannot do."""
        with self._ledger.starting():
            for label in labels:
                crew.start(label, backend_of(label))
            answers = crew.introduce(messages.Introduce(self._plan.problems))
        for label, answer in answers.items():
            cells = self._board.of_label(label)
            if isinstance(answer, WorkerLost):
                for cell in cells:
                    self._end(cell, answer.status, answer.reason)
                continue
            if self._board.machine is None:
                self._note(journal.Met(answer.machine))
            if self._watch is None and any(problem.device == "cuda" for problem in self._plan.problems):
                self._watch = ClockWatch(answer.machine.gpu_uuid or "")
            for cell in cells:
                if not answer.available.yes:
                    self._end(cell, "unavailable", answer.available.reason)
                elif not (supports := answer.supports[cell.index]).yes:
                    self._end(cell, "unsupported", supports.reason)

    def _slice(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """One problem in one launch: prepare and check each label, then take turns."""
        with self._ledger.checking(thorough=any(cell.checked is None for cell in cells)):
            call_ns = self._prepare_all(crew, cells)
            if self._plan.aa and self._board.twin is None and call_ns:
                cells = [*cells, self._start_twin(crew, call_ns, cells[0].index)]
                self._prepare_all(crew, cells[-1:])
        with self._ledger.taking_turns():
            self._take_turns(crew, launch, [cell for cell in cells if cell.is_open])
        crew.release(cell.label for cell in cells)

    def _prepare_all(self, crew: Crew, cells: list[Cell]) -> dict[str, int]:
        """Have each worker check its cell: what a call took in nanoseconds, by label, where it is to be timed.

        Compilers and interpreters work beside the others, for nothing is timed meanwhile. They begin once one of the
        others has left the inputs and the oracle's answer for all, which nobody writes to afterwards. Where others
        measure as they prepare, by probes or, on a GPU, by tuning, they work alone.
        """
        beside = not self._plan.probes and all(cell.problem.device == "cpu" for cell in cells)
        slow = [cell for cell in cells if beside and cell.label in crew.slow]
        call_ns: dict[str, int] = {}
        waiting: list[tuple[Cell, messages.Prepare]] = []
        for cell in [cell for cell in cells if cell not in slow]:
            if (took := self._prepare(crew, cell)) is not None:
                call_ns[cell.label] = took
                if slow:
                    waiting = [(each, request) for each in slow if (request := self._tell_to_prepare(crew, each))]
                    slow = []
        for cell, request in waiting:
            if (took := self._prepared(crew, cell, request, beside=True)) is not None:
                call_ns[cell.label] = took
        # None of the others came to an end.
        for cell in slow:
            if (took := self._prepare(crew, cell)) is not None:
                call_ns[cell.label] = took
        return call_ns

    def _prepare(self, crew: Crew, cell: Cell) -> int | None:
        """Have the worker check the cell; what a call took in nanoseconds, or None where it is not to be timed."""
        request = self._tell_to_prepare(crew, cell)
        return None if request is None else self._prepared(crew, cell, request)

    def _tell_to_prepare(self, crew: Crew, cell: Cell) -> messages.Prepare | None:
        """Ask for the check and don't wait; None where there is nothing to ask, or nobody."""
        if not cell.is_open:
            return None
        measurable = crew.measurable.get(cell.label, messages.Verdict(True))
        # The twin is another process of a backend that has agreed, as a later launch is.
        checked = cell.checked or self._board[cell.backend, cell.index].checked
        known = checked.fingerprint if checked is not None else []
        # A cell that was raced out takes one sample more, and has no use for distinct inputs.
        input_bytes = 0 if cell.raced else self._plan.input_bytes
        request = messages.Prepare(cell.problem, measurable.yes, input_bytes, self._plan.probes, known)
        try:
            crew.tell(cell.label, request)
        except WorkerLost as lost:
            self._end(cell, lost.status, lost.reason)
            return None
        return request

    def _prepared(self, crew: Crew, cell: Cell, request: messages.Prepare, beside: bool = False) -> int | None:
        """Take in the answer to ``request``; as ``_prepare``. ``beside``: it was worked on while others were asked."""
        began = time.monotonic()
        try:
            reply = crew.reply(cell.label, request)
        except WorkerLost as lost:
            self._end(cell, lost.status, lost.reason)
            return None
        assert isinstance(reply, messages.Prepared)
        if beside:
            # Of work that overlaps, only the wait for it is wall time.
            self._ledger.checked(0, time.monotonic() - began, 0.0)
        else:
            self._ledger.checked(reply.calls_ns, reply.compile_seconds, reply.oracle_seconds)
        if cell.checked is None:
            measurable = crew.measurable.get(cell.label, messages.Verdict(True))
            first = self._board[cell.backend, cell.index].checked if request.fingerprint else None
            self._note(_checked(cell, reply, measurable) if first is None else replace(first, label=cell.label))
        if reply.status != "ok":
            self._close(crew, cell, reply.status, reply.reason)
            return None
        self._tell("checked", "agrees with the oracle", cell)
        return reply.call_ns if cell.is_open else None

    def _start_twin(self, crew: Crew, call_ns: dict[str, int], index: int) -> Cell:
        """Choose the backend that runs twice, of those that can do most of the problems the quickest, and start it."""
        open_cells = {label: sum(cell.is_open for cell in self._board.of_label(label)) for label in call_ns}
        most = max(open_cells.values())
        backend = min((label for label in call_ns if open_cells[label] == most), key=lambda label: call_ns[label])
        self._note(journal.Twinned(backend))
        self._start(crew, [backend + TWIN])
        return self._board[backend + TWIN, index]

    def _take_turns(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """Rounds of turns in seeded random order, until no cell wants more or this slice's share of time is gone."""
        plan = self._plan
        if not cells:
            return
        order = random.Random(f"{plan.seed} {launch} {cells[0].index}")
        deadline = self._ledger.slice_deadline()
        while True:
            late = time.monotonic() >= deadline
            turns = [
                (cell, question)
                for cell in cells
                for question in cell.questions
                if question not in crew.unanswered.get(cell.label, ())
                and cell.wants(question, launch, plan.target_interval, late)
            ]
            if not turns:
                return
            order.shuffle(turns)
            for cell, question in turns:
                if cell.is_open:
                    self._turn(crew, launch, cell, question, late)
            if plan.race:
                for lost in race(cells, launch):
                    self._tell("closed", "raced out: slower than 1.5 × the best", lost)

    def _turn(self, crew: Crew, launch: int, cell: Cell, question: Question, late: bool) -> None:
        seconds = self._sample_seconds.get((cell, question), _TURN_SECONDS)
        count = max(1, min(_MOST_PER_TURN, round(_TURN_SECONDS / seconds)))
        request = messages.Sample(question, count, _HURRIED_WARMUP_NS if late else _WARMUP_NS)
        try:
            reply = crew.ask(cell.label, request)
        except WorkerLost as lost:
            self._end(cell, lost.status, lost.reason)
            return
        assert isinstance(reply, messages.Sampled)
        self._ledger.sampled(reply.calls_ns)
        if reply.status != "ok":
            self._close(crew, cell, reply.status, reply.reason)
            return
        if not reply.samples_ns:
            crew.unanswered.setdefault(cell.label, set()).add(question)
            return
        if self._watch is not None and (why := self._watch.held_down(reply.began_ns, reply.ended_ns)):
            self._reject(crew, launch, cell, question, len(reply.samples_ns), why)
            return
        self._rejections.pop((cell, question), None)
        taken = len(reply.samples_ns) + len(reply.warmup_ns)
        self._sample_seconds[cell, question] = max(1e-6, (reply.ended_ns - reply.began_ns) / 1e9 / taken)
        self._note(
            journal.Took(cell.label, cell.index, launch, question, reply.samples_ns, reply.warmup_ns, note=reply.noise)
        )
        self._tell("sampled", question, cell)

    def _reject(self, crew: Crew, launch: int, cell: Cell, question: Question, count: int, why: str) -> None:
        """Count samples that a throttled clock spoilt, and wait longer each time for it to recover."""
        self._note(journal.Took(cell.label, cell.index, launch, question, [], rejected=count))
        tries = self._rejections[cell, question] = self._rejections.get((cell, question), 0) + 1
        if tries <= len(_PAUSES_SECONDS):
            time.sleep(_PAUSES_SECONDS[tries - 1])
        elif cell.launches(question):
            crew.unanswered.setdefault(cell.label, set()).add(question)
        else:
            self._end(cell, "throttled", f"every sample was taken while {why}")

    def _close(self, crew: Crew, cell: Cell, status: Status, reason: str) -> None:
        """End a cell that misbehaved, and its process with it: whatever it left behind goes, too."""
        crew.discard(cell.label)
        self._end(cell, status, reason)

    def _end(self, cell: Cell, status: Status, reason: str) -> None:
        if cell.status is None:
            self._note(journal.Ended(cell.label, cell.index, status, reason))
            self._tell("closed", f"{status}: {reason}", cell)

    def _note(self, entry: journal.Entry) -> None:
        self._log.write(entry)
        self._board.apply(entry)

    def _tell(self, kind: EventKind, message: str, cell: Cell | None = None) -> None:
        if self._progress is not None:
            label, problem = (cell.label, cell.problem) if cell else ("", None)
            self._progress(Event(kind, message, self._ledger.share_done(), label, problem))

    def _finish(self, interrupted: bool) -> Summary:
        """Write the records that aren't written yet; the journal goes once nothing is left to resume."""
        started, board = self._started, self._board
        records, unmeasured = board.records(started, interrupted)
        for entry in records:
            record.append(self._out, entry)
        self._log.close(remove=not unmeasured)
        self._warnings += flips(board.recorded + records)
        return Summary(
            started.run,
            board.recorded + records,
            board.noise_floor(),
            self._warnings,
            self._ledger.effort(),
            interrupted,
        )


def _checked(cell: Cell, reply: messages.Prepared, measurable: messages.Verdict) -> journal.Checked:
    """What the first launch learnt of a cell; the note becomes the reason of a record that is ok."""
    untimed = f"no latency: {measurable.reason}; agreement checked on an excerpt"
    notes = ["" if measurable.yes else untimed, reply.noise]
    return journal.Checked(
        label=cell.label,
        problem=cell.index,
        agreement=reply.agreement,
        compile_seconds=reply.compile_seconds,
        peak_bytes=reply.peak_bytes,
        workspace_bytes=reply.workspace_bytes,
        kernels=reply.kernels,
        probes=reply.probes,
        fingerprint=reply.fingerprint,
        measurable=measurable.yes,
        note="; ".join(note for note in notes if note),
    )
