"""The coordinator: starts workers, hands out turns, has results judged, journals what comes of it, writes the records.

It never imports torch, so that it starts at once and nothing of it runs while a worker is timed. It believes a worker
nothing that it cannot check: what is right is the referee's word, and how long it took is held against its own clock.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from rls_bench.backends import registry
from rls_bench.backends.words import one_line
from rls_bench.errors import RecordError
from rls_bench.records import record
from rls_bench.records.flips import flips
from rls_bench.records.record import Agreement, Question, Status
from rls_bench.referee.client import Referee
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Draw, Layout
from rls_bench.runner import journal, messages, process, provenance
from rls_bench.runner.board import TWIN, Board, backend_of
from rls_bench.runner.cell import Cell, race
from rls_bench.runner.crew import Crew
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.plan import Event, Plan, Summary
from rls_bench.runner.process import NurseryLost, WorkerLost
from rls_bench.runner.quiet import Quiet
from rls_bench.runner.sense import Clocks
from rls_bench.runner.throttle import ClockWatch
from rls_bench.timing import steadiness

# A turn is about this long where samples are shorter, so that handing out turns costs little.
_TURN_SECONDS = 0.03
_MOST_PER_TURN = 5
# Waits for a throttled clock to recover, one after each turn that it spoilt; then the cell is given up.
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_WARMUP_NS = 300_000_000
_HURRIED_WARMUP_NS = 50_000_000
# A label that was asked when all workers were lost is asked again by a fresh one, as the others are; but only so often.
_MOST_COLLAPSES = 2
# Waits for one backend that come to nothing; it is asked no more.
_MOST_TIMEOUTS = 2

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
        self._disturbances: list[str] = []
        self._sample_seconds: dict[tuple[Cell, Question], float] = {}
        self._rejections: dict[tuple[Cell, Question], int] = {}
        self._watch: ClockWatch | None = None
        self._clocks: dict[Cell, Clocks] = {}
        self._collapses: dict[str, int] = {}
        self._timeouts: dict[str, int] = {}
        self._turns = 0
        # What is named after the fact must not be known before it.
        self._draw = random.SystemRandom()
        self._referee: Referee | None = None
        self._ledger = Ledger(self._plan.budget_seconds, self._plan.launches, len(self._plan.problems))

    @classmethod
    def open(cls, plan: Plan, out: Path, *, resume: bool, progress: Callable[[Event], None] | None) -> Session:
        """A session that is ready to run; see ``rls_bench.runner.run``."""
        for backend in plan.backends:
            registry.check_name(backend)
        if resume:
            return cls._resumed(plan, out, progress)
        run = provenance.run_id()
        commit, dirty, unknown = provenance.git_commit()
        started = journal.Started(run, provenance.utc_now(), plan, commit, dirty, commit_unknown=unknown)
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
            with _signals_interrupt(), Referee(process.environment()) as self._referee:
                self._measure(self._referee)
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
        self._disturbances = steadiness.complaints(before, steadiness.read([os.getpid()]), steadiness.clock_share())
        self._warnings += self._disturbances
        return self._finish(interrupted)

    def _measure(self, referee: Referee) -> None:
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
                with self._ledger.starting():
                    self._meet(referee)
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

    def _meet(self, referee: Referee) -> None:
        """Learn what machine this is, of a process that no backend was loaded in."""
        if self._board.machine is None:
            self._note(journal.Met(referee.machine()))
        machine = self._board.machine
        if machine is not None and self._watch is None and any(p.device == "cuda" for p in self._plan.problems):
            self._watch = ClockWatch(machine.gpu_uuid or "")

    def _start(self, crew: Crew, labels: list[str]) -> None:
        """Start workers side by side, for importing is most of it, and close the cells that they cannot do."""
        for label in labels:
            crew.start(label, backend_of(label))
        answers = self._introduced(crew)
        for label, answer in answers.items():
            cells = self._board.of_label(label)
            if isinstance(answer, WorkerLost):
                self._lost(cells, answer)
                continue
            for cell in cells:
                supports = answer.supports[cell.index]
                for verdict in (answer.available, answer.measurable, supports):
                    if verdict.failed:
                        self._end(cell, "failed", verdict.reason)
                if not answer.available.yes:
                    self._end(cell, "unavailable", answer.available.reason)
                elif not supports.yes:
                    self._end(cell, "unsupported", supports.reason)

    def _introduced(self, crew: Crew) -> dict[str, messages.Introduction | WorkerLost]:
        request = messages.Introduce(self._plan.problems)
        answers: dict[str, messages.Introduction | WorkerLost] = {}
        while True:
            try:
                return answers | crew.introduce(request)
            except NurseryLost:
                answers |= self._collapsed(crew)

    def _collapsed(self, crew: Crew) -> dict[str, WorkerLost]:
        """All workers are gone at once: begin again with fresh ones; who was asked each time is to blame, by label."""
        busy = crew.busy
        blamed = {}
        for label in busy:
            self._collapses[label] = self._collapses.get(label, 0) + 1
            if self._collapses[label] >= _MOST_COLLAPSES and len(busy) == 1:
                why = "the process that workers are started from ended each time that it was asked: it ended its parent"
                blamed[label] = WorkerLost("failed", why)
        crew.renew(alone=True, without=blamed)
        return blamed

    def _slice(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        """One problem in one launch: prepare and check each label, then take turns; again where all were lost."""
        while open_cells := [cell for cell in cells if cell.is_open]:
            try:
                self._slice_once(crew, launch, open_cells)
                return
            except NurseryLost:
                for label, lost in self._collapsed(crew).items():
                    self._lost(self._board.of_label(label), lost)
                self._note(journal.Redone(cells[0].index, launch))

    def _slice_once(self, crew: Crew, launch: int, cells: list[Cell]) -> None:
        with self._ledger.checking(thorough=any(cell.checked is None for cell in cells)):
            call_ns = self._prepare_all(crew, launch, cells)
            if self._plan.aa and not self._board.has_twin() and call_ns:
                cells = [*cells, self._start_twin(crew, call_ns, cells[0].index)]
                self._prepare_all(crew, launch, cells[-1:])
        with self._ledger.taking_turns():
            self._take_turns(crew, launch, [cell for cell in cells if cell.is_open])
        for label, lost in crew.release(cell.label for cell in cells).items():
            reason = f"lost as it let go of {self._plan.problems[cells[0].index].title}: {lost.reason}"
            self._lost([cell for cell in cells if cell.label == label], WorkerLost(lost.status, reason))

    def _prepare_all(self, crew: Crew, launch: int, cells: list[Cell]) -> dict[str, int]:
        """Have each worker check its cell: what a call took in nanoseconds, by label, where it is to be timed.

        Compilers and interpreters work beside the others, for nothing is timed meanwhile. Where others measure as they
        prepare, by probes or, on a GPU, by tuning, they work alone.
        """
        on_cpu = all(cell.problem.device == "cpu" for cell in cells)
        beside = not crew.alone and not self._plan.probes and on_cpu
        slow = [cell for cell in cells if beside and cell.label in crew.slow and cell.is_open]
        call_ns: dict[str, int] = {}
        waiting = [(cell, asked) for cell in slow if (asked := self._tell_to_prepare(crew, launch, cell)) is not None]
        for cell in [cell for cell in cells if cell not in slow and cell.is_open]:
            if (asked := self._tell_to_prepare(crew, launch, cell)) is not None and (
                took := self._prepared(crew, cell, asked)
            ) is not None:
                call_ns[cell.label] = took
        for cell, asked in waiting:
            if (took := self._prepared(crew, cell, asked, beside=True)) is not None:
                call_ns[cell.label] = took
        return call_ns

    def _tell_to_prepare(self, crew: Crew, launch: int, cell: Cell) -> messages.Prepare | None:
        """Ask for the first calls and don't wait; None where nobody is there to be asked."""
        measurable = crew.measurable.get(cell.label, messages.Verdict(True))
        # The twin is another process of a backend that has agreed, as a later launch is.
        checked = cell.checked or self._board[cell.backend, cell.index].checked
        # A cell that was raced out takes one sample more, and has no use for distinct inputs.
        input_bytes = 0 if cell.raced else self._plan.input_bytes
        # Saliency changes between the two calls, whatever the seed.
        first, second = (Contents(self._seed(launch, cell), bias) for bias in (0, 1))
        memory, layout = self._drawn(self._request(crew, cell))
        request = messages.Prepare(
            layout, (first, second), measurable.yes, input_bytes, self._plan.probes, thorough=checked is None
        )
        try:
            crew.tell(cell.label, request, memory)
        except WorkerLost as lost:
            self._lost([cell], lost)
            return None
        finally:
            os.close(memory)
        return request

    def _prepared(self, crew: Crew, cell: Cell, request: messages.Prepare, beside: bool = False) -> int | None:
        """Take in the answer to ``request``, and have it judged: what a call took in nanoseconds, or None where it is
        not to be timed. ``beside``: it was worked on while others were asked."""
        began = time.monotonic()
        try:
            reply = crew.reply(cell.label)
        except WorkerLost as lost:
            self._lost([cell], lost, time.monotonic() - began)
            return None
        assert isinstance(reply, messages.Prepared)
        if beside:
            # Of work that overlaps, only the wait for it is wall time.
            self._ledger.checked(0, time.monotonic() - began)
        else:
            self._ledger.checked(reply.calls_ns, reply.compile_seconds)
        judged = self._judge_first(crew, cell, request, reply.handed)
        if cell.checked is None:
            measurable = crew.measurable.get(cell.label, messages.Verdict(True))
            known = self._board[cell.backend, cell.index].checked
            learnt = _checked(cell, reply, judged, measurable, cell.label not in crew.unsteered)
            self._note(learnt if known is None else replace(known, label=cell.label))
        # What else was seen explains a result that isn't right.
        if reply.status == "ok" and judged is not None and not judged.passed:
            self._close(crew, cell, "wrong", judged.reason)
            return None
        if reply.status != "ok":
            self._close(crew, cell, reply.status, reply.reason)
            return None
        self._tell("checked", "agrees with the oracle", cell)
        return reply.call_ns if cell.is_open else None

    def _judge_first(self, crew: Crew, cell: Cell, request: messages.Prepare, handed: int) -> Agreement | None:
        """The verdict on the first results handed over: the first that isn't right, or else the very first."""
        began = time.monotonic()
        first, second = request.contents
        asked = [(first, None), (second, None), (second, 1)][:handed]
        verdicts = [self._judge(crew, cell, contents, slot, again) for slot, (contents, again) in enumerate(asked)]
        self._ledger.judged(time.monotonic() - began)
        return next((verdict for verdict in verdicts if not verdict.passed), verdicts[0] if verdicts else None)

    def _seed(self, launch: int, cell: Cell) -> str:
        """A seed that no turn of this or any other run has had."""
        self._turns += 1
        return f"{self._plan.seed} {self._started.run} {launch} {cell.label} {self._turns}"

    def _request(self, crew: Crew, cell: Cell) -> Draw:
        """What is drawn for a cell: an excerpt is enough for what is never timed."""
        measurable = crew.measurable.get(cell.label, messages.Verdict(True))
        return Draw(cell.problem, self._started.run, excerpt=not measurable.yes)

    def _drawn(self, request: Draw) -> tuple[int, Layout]:
        assert self._referee is not None
        began = time.monotonic()
        drawn = self._referee.draw(request)
        self._ledger.judged(time.monotonic() - began)
        return drawn

    def _judge(self, crew: Crew, cell: Cell, contents: Contents, slot: int, repeats: int | None = None) -> Agreement:
        assert self._referee is not None
        steers, tray = cell.label not in crew.unsteered, crew.tray(cell.label)
        return self._referee.judge(self._request(crew, cell), contents, tray, slot, steers, repeats)

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
        quiet = Quiet(crew.pids())
        quiet.settle()
        deadline = self._ledger.slice_deadline()
        while True:
            late = time.monotonic() >= deadline
            turns = self._next_turns(crew, launch, cells, late)
            if not turns:
                if (disturber := quiet.last_disturber()) is None:
                    return
                quiet = self._quieten(crew, launch, cells[0].index, disturber)
                continue
            self._shuffle(turns, order)
            for cell, question in turns:
                if cell.is_open:
                    self._turn(crew, launch, cell, question, late)
                    if (disturber := quiet.disturber(cell.label)) is not None:
                        quiet = self._quieten(crew, launch, cell.index, disturber)
                        break
            if plan.race:
                for lost in race(cells, launch):
                    self._tell("closed", "raced out: slower than 1.5 × the best", lost)

    def _next_turns(self, crew: Crew, launch: int, cells: list[Cell], late: bool) -> list[tuple[Cell, Question]]:
        """Who takes a turn in the next round."""
        return [
            (cell, question)
            for cell in cells
            for question in cell.questions
            if question not in crew.unanswered.get(cell.label, ())
            and cell.wants(question, launch, self._plan.target_interval, late)
        ]

    def _shuffle(self, turns: list[tuple[Cell, Question]], order: random.Random) -> None:
        """Put a round's turns into the order in which they are taken."""
        order.shuffle(turns)

    def _quieten(self, crew: Crew, launch: int, index: int, disturber: str) -> Quiet:
        """End a backend that works in others' turns, and have all turns of this problem taken anew without it."""
        crew.discard(disturber)
        backend = backend_of(disturber)
        why = f"it kept working between its turns, on {self._plan.problems[index].title}"
        for cell in [*self._board.of_label(backend), *self._board.twin_cells()]:
            if cell.backend == backend and cell.is_open:
                self._end(cell, "failed", why)
        self._note(journal.Redone(index, launch))
        quiet = Quiet(crew.pids())
        quiet.settle()
        return quiet

    def _turn(self, crew: Crew, launch: int, cell: Cell, question: Question, late: bool) -> None:
        seconds = self._sample_seconds.get((cell, question), _TURN_SECONDS)
        count = max(1, min(_MOST_PER_TURN, round(_TURN_SECONDS / seconds)))
        contents = Contents(self._seed(launch, cell), self._draw.randrange(2))
        request = messages.Sample(question, count, _HURRIED_WARMUP_NS if late else _WARMUP_NS, contents)
        began_ns = time.monotonic_ns()
        try:
            reply = crew.ask(cell.label, request)
        except WorkerLost as lost:
            self._lost([cell], lost, (time.monotonic_ns() - began_ns) / 1e9)
            return
        wall_ns = time.monotonic_ns() - began_ns
        assert isinstance(reply, messages.Sampled)
        self._ledger.sampled(reply.calls_ns)
        if reply.status != "ok":
            self._close(crew, cell, reply.status, reply.reason)
            return
        if not reply.samples_ns:
            crew.unanswered.setdefault(cell.label, set()).add(question)
            return
        if complaint := self._clocks_of(cell).complaint(request, reply, wall_ns):
            self._close(crew, cell, "failed", complaint)
            return
        named = self._draw.choice(reply.handed)
        judged = self._judge(crew, cell, contents.of(named.which, named.steps), named.slot)
        if not judged.passed:
            self._close(crew, cell, "wrong", f"a timed call: {judged.reason}")
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

    def _clocks_of(self, cell: Cell) -> Clocks:
        if cell not in self._clocks:
            self._clocks[cell] = Clocks(cell.problem, os.cpu_count() or 1)
        return self._clocks[cell]

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

    def _lost(self, cells: list[Cell], lost: WorkerLost, waited_seconds: float = 0.0) -> None:
        """End cells whose worker is gone; where it was waited for in vain, those for which it would be once more."""
        for cell in cells:
            self._end(cell, lost.status, lost.reason)
        if lost.status != "timeout" or not cells:
            return
        # Nobody else's time is shorter for it.
        self._ledger.excuse(waited_seconds)
        backend, problem = cells[0].backend, cells[0].problem
        self._timeouts[backend] = self._timeouts.get(backend, 0) + 1
        for cell in [*self._board.of_label(backend), *self._board.twin_cells()]:
            again = cell.checked is None or self._timeouts[backend] >= _MOST_TIMEOUTS
            if cell.backend == backend and cell.is_open and again:
                self._end(cell, "timeout", f"not asked again after {problem.title}: {lost.reason}")

    def _close(self, crew: Crew, cell: Cell, status: Status, reason: str) -> None:
        """End a cell that misbehaved, and its process with it: whatever it left behind goes, too."""
        crew.discard(cell.label)
        self._end(cell, status, reason)

    def _end(self, cell: Cell, status: Status, reason: str) -> None:
        if cell.status is None:
            self._note(journal.Ended(cell.label, cell.index, status, one_line(reason)))
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
        records = [dataclasses.replace(entry, warnings=self._disturbances) for entry in records]
        for entry in records:
            record.append(self._out, entry)
        self._log.close(remove=not unmeasured)
        self._warnings += [flip.title for flip in flips(board.recorded + records)]
        return Summary(
            started.run,
            board.recorded + records,
            board.noise_floor(),
            self._warnings,
            self._ledger.effort(),
            interrupted,
            unmeasured,
        )


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Within it, a signal that asks this process to end does so as Ctrl-C does: what was measured is written."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Only a program's main thread may set handlers.
        try:
            before[number] = signal.signal(number, interrupt)
        except ValueError:
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
