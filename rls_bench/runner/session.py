"""The coordinator: starts workers, hands out turns, has results judged, journals what comes of it, writes the records.

It never imports torch, so that it starts at once and nothing of it runs while a worker is timed. It believes a worker
nothing that it cannot check: what is right is the referee's word, and how long it took is held against its own clock.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from rls_bench.backends import registry
from rls_bench.errors import RecordError
from rls_bench.records import record
from rls_bench.records.flips import flips
from rls_bench.referee.client import Referee
from rls_bench.runner import journal, process, provenance, room
from rls_bench.runner.board import Board
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.launch import Launch
from rls_bench.runner.limit import OutOfTime
from rls_bench.runner.plan import Event, Plan, Summary
from rls_bench.runner.throttle import ClockWatch
from rls_bench.runner.turns import Turns
from rls_bench.timing import steadiness


class Session:
    """One run, new or gone on with."""

    def __init__(self, course: Course, out: Path, turns: Turns | None = None) -> None:
        """``turns``: how they are taken, where that is not as usual."""
        self._course = course
        self._out = out
        self._turns = turns or Turns(course)
        self._warnings: list[str] = []
        self._disturbances: list[str] = []

    @classmethod
    def open(
        cls, plan: Plan, out: Path, *, resume: bool, progress: Callable[[Event], None] | None, glances: bool = False
    ) -> Session:
        """A session that is ready to run; see ``rls_bench.runner.run``."""
        for backend in plan.backends:
            registry.check_name(backend)
        room.check()
        if resume:
            return cls._resumed(plan, out, progress)
        run = provenance.run_id()
        commit, dirty, unknown = provenance.git_commit()
        started = journal.Started(run, provenance.utc_now(), plan, commit, dirty, commit_unknown=unknown)
        log = journal.Journal(journal.beside(out, run))
        log.write(started)
        return cls(Course(started, log, Board(plan), progress, glances), out)

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
        return cls(Course(started, log, board, progress), out)

    def run(self) -> Summary:
        """Measure until every cell has what it wants or the budget ends, then write the records."""
        course, interrupted = self._course, False
        before = steadiness.read([os.getpid()])
        try:
            with course.limit.signals(), Referee(process.environment(), course.limit.check) as course.referee:
                self._measure(course.referee)
        except OutOfTime:
            pass
        except KeyboardInterrupt:
            interrupted = True
        except BaseException:
            course.log.close(remove=False)
            raise
        finally:
            if course.watch is not None:
                self._warnings += [complaint] if (complaint := course.watch.complaint()) else []
                course.watch.stop()
        # The workers' time is this process's own, once they are reaped.
        self._disturbances = steadiness.complaints(before, steadiness.read([os.getpid()]), steadiness.clock_share())
        self._warnings += self._disturbances
        course.outlook.remember()
        return self._finish(interrupted)

    def _measure(self, referee: Referee) -> None:
        course, plan = self._course, self._course.plan
        first = course.board.last_launch + 1
        while cells := course.board.due(plan, spare_time=course.ledger.affords_another_launch()):
            if not course.outlook.has_room_for_launch({cell.index for cell in cells}):
                return
            number = course.board.last_launch + 1
            course.ledger.begin_launch()
            labels = list(dict.fromkeys(cell.label for cell in cells))
            twin_before = course.board.twin
            course.tell("launch", f"launch {number}: starting {len(labels)} processes")
            # A driver that has been woken doesn't survive a fork.
            forks = all(problem.device == "cpu" for problem in plan.problems)
            with Crew(plan.timeout_seconds, plan.compile_timeout_seconds, forks, course.limit.check) as crew:
                launch = Launch(course, crew, self._turns, number)
                with course.ledger.starting():
                    self._meet(referee)
                    launch.start(labels)
                if number == first:
                    course.tell("plan", course.outlook.foresee(course.board, crew))
                for index in range(len(plan.problems)):
                    due = [cell for cell in cells if cell.index == index and cell.is_open]
                    # The twin is chosen on the first problem, and takes part from there on.
                    if course.board.twin != twin_before:
                        due += [cell for cell in course.board.twin_cells() if cell.index == index and cell.is_open]
                    again = all(cell.checked is not None for cell in due)
                    if due and course.outlook.has_room(index, again):
                        with course.outlook.slice(index, number, again):
                            launch.go_through(due)
                        course.glance(index)
                    course.ledger.slice_done()
            course.board.last_launch = number

    def _meet(self, referee: Referee) -> None:
        """Learn what machine this is, of a process that no backend was loaded in."""
        course = self._course
        if course.board.machine is None:
            course.note(journal.Met(referee.machine()))
        machine = course.board.machine
        if machine is not None and course.watch is None and any(p.device == "cuda" for p in course.plan.problems):
            course.watch = ClockWatch(machine.gpu_uuid or "")

    def _finish(self, interrupted: bool) -> Summary:
        """Write the records that aren't written yet; the journal goes once nothing is left to resume."""
        started, board = self._course.started, self._course.board
        records, unmeasured = board.records(started, interrupted)
        records = [dataclasses.replace(entry, warnings=self._disturbances) for entry in records]
        for entry in records:
            record.append(self._out, entry)
        self._course.log.close(remove=not unmeasured)
        self._warnings += [flip.title for flip in flips(board.recorded + records)]
        return Summary(
            started.run,
            board.recorded + records,
            board.noise_floor(),
            self._warnings,
            self._course.ledger.effort(),
            interrupted,
            unmeasured,
            "" if interrupted else self._left_out(),
        )

    def _left_out(self) -> str:
        """What the limit had no room for."""
        plan, cells = self._course.plan, self._course.board.cells
        if plan.limit_seconds is None:
            return ""
        open_cells = [cell for cell in cells if cell.is_open]
        begun = [cell for cell in open_cells if cell.samples]
        parts = []
        if short := [cell for cell in begun if cell.finished_launches() < plan.launches]:
            missing = sum(plan.launches - cell.finished_launches() for cell in short)
            parts.append(f"{missing} of {plan.launches * len(begun)} launches of the {len(begun)} cells timed")
        for problem in plan.problems:
            of_problem = [cell for cell in open_cells if cell.problem == problem]
            if missed := [cell.label for cell in of_problem if cell not in begun]:
                whole = len(missed) == len(of_problem)
                parts.append(problem.title if whole else f"{', '.join(missed)} on {problem.title}")
        return "; ".join(parts)
