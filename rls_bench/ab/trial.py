"""One run of two trees: today's harness, and each backend from both, in every launch and taking turns.

It is a session like any other, whose labels are backends of a tree, and which goes on until each cell has a verdict.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rls_bench.ab.judging import FEWEST_LAUNCHES, Finding, Looks
from rls_bench.ab.trees import Tree
from rls_bench.backends import registry, sources
from rls_bench.compare import sources as compared
from rls_bench.compare.sources import Key, load
from rls_bench.compare.verdict import ORDER, Comparison, Row, match, percent
from rls_bench.errors import RlsBenchError
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.records.record import Question, Record
from rls_bench.runner import journal, provenance, room
from rls_bench.runner.board import Board
from rls_bench.runner.cell import Cell
from rls_bench.runner.course import Course
from rls_bench.runner.crew import Crew
from rls_bench.runner.plan import QUESTIONS, Event, Plan, Summary
from rls_bench.runner.session import Session
from rls_bench.runner.turns import Turns

# The time is shared out among so many launches; cells that are settled earlier leave theirs to the others.
_LAUNCHES = 16
# Of a cell in a launch. Starting a process costs as much as some hundred samples of a millisecond.
_MOST_SAMPLES = 96
# As many results as a worker hands over at once (``referee.trial.SLOTS``): what comes with a turn takes 30 ms of it.
_MOST_PER_TURN = 8
# Both sides are as cold, and the time goes into launches.
_CPU_WARMUP_NS = 50_000_000
# Pairs of one launch, once each has had its first few: starting a process costs as much as sampling it.
_MOST_PAIRS = 8
SIDES = ("base", "new")

_Pair = tuple[str, int]


@dataclass(frozen=True)
class Files:
    """Where the records of both sides go."""

    base: Path
    new: Path

    @classmethod
    def beside(cls, out: Path) -> Files:
        """``OUT.base.jsonl`` and ``OUT.new.jsonl``."""
        return cls(out.with_name(f"{out.name}.base.jsonl"), out.with_name(f"{out.name}.new.jsonl"))


def run(
    base: Tree,
    new: Tree,
    problems: Sequence[Problem],
    backends: Sequence[str],
    out: Path,
    *,
    threshold: float = 0.02,
    budget_seconds: float = 240.0,
    suite: str = "",
    seed: int = 0,
    progress: Callable[[Event], None] | None = None,
) -> Comparison:
    """Measure ``backends`` of both trees on ``problems`` until each cell has a verdict or the budget ends.

    The records of both lie in the ``Files`` beside ``out`` afterwards. Raises UnknownBackend before anything starts,
    RecordError where a file cannot be written.
    """
    for backend in backends:
        registry.check_name(backend)
    room.check()
    # The same tree twice is a comparison, too: of nothing but noise.
    paths = base.path, new.path if new.path != base.path else new.path / ".." / new.path.name
    names = {sources.named(backend, path): side for side, path in enumerate(paths) for backend in backends}
    device = problems[0].device
    plan = Plan(
        list(problems),
        list(names),
        suite=suite,
        seed=seed,
        launches=_LAUNCHES,
        budget_seconds=budget_seconds,
        limit_seconds=budget_seconds,
        race=False,
        questions=QUESTIONS[device][:1],
        aa=False,
    )
    files = Files.beside(out)
    started = journal.Started(provenance.run_id(), provenance.utc_now(), plan, None, False)
    log = journal.Journal(journal.beside(files.base, started.run))
    log.write(started)
    board = _Board(plan, names, (base, new), threshold)
    course = Course(started, log, board, progress)
    summary = _Session(course, board, files).run()
    if not summary.records:
        raise RlsBenchError(
            f"ab: nothing was measured within {budget_seconds:g} s; starting alone took {summary.effort.start:.0f} s"
        )
    warnings = summary.warnings
    return _comparison(board, files, threshold, [*_unfit(base, new), *warnings])


class _Board(Board):
    """Cells in pairs: a backend of one tree, and the same of the other."""

    def __init__(
        self,
        plan: Plan,
        names: dict[str, int],
        trees: tuple[Tree, Tree],
        threshold: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        # The logarithm of each turn's quickest sample of a label, by problem and launch.
        self._turns: dict[tuple[str, int, int], list[float]] = {}
        super().__init__(plan)
        self._names = names
        self._trees = trees
        self._looks: Looks[_Pair] = Looks(threshold)
        self._now, self._began = now, now()

    def apply(self, entry: journal.Entry) -> None:
        """As any board, and keep turns apart: each is compared with the other side's beside it."""
        super().apply(entry)
        if isinstance(entry, journal.Redone):
            for label in self._names:
                self._turns.pop((label, entry.problem, entry.launch), None)
        if isinstance(entry, journal.Took) and entry.samples_ns:
            turns = self._turns.setdefault((entry.label, entry.problem, entry.launch), [])
            turns.append(math.log(min(entry.samples_ns)))

    def pairs(self) -> dict[_Pair, tuple[Cell, Cell]]:
        """Both cells of each backend and problem, base first."""
        found: dict[_Pair, list[Cell]] = {}
        for name in self._names:
            for cell in self.of_label(name):
                found.setdefault((_plain(name), cell.index), []).append(cell)
        return {pair: (cells[0], cells[1]) for pair, cells in found.items()}

    def findings(self) -> dict[_Pair, Finding]:
        """What each pair that was timed on both sides showed by the end."""
        self._looks.look(self._log_ratios(), 1.0)
        return self._looks.found

    def _log_ratios(self) -> dict[_Pair, list[float]]:
        ratios = {}
        for pair, (base, new) in self.pairs().items():
            if not base.status and not new.status:
                launches = [self._ratio(base, new, launch) for launch in range(1, self.last_launch + 1)]
                ratios[pair] = [ratio for ratio in launches if ratio is not None]
        return ratios

    def _ratio(self, base: Cell, new: Cell, launch: int) -> float | None:
        """The log ratio of new over base in one launch: the median over pairs of turns that were taken together.

        What else runs on the machine makes calls slower and never quicker, so each turn goes by its quickest. Where two
        cores were kept busy, the mean over launches was known half again as well as by the medians of turns. A change
        that slows a few calls only is not seen so; ``compare`` goes by medians.
        """
        before, after = (self._turns.get((cell.label, cell.index, launch), []) for cell in (base, new))
        pairs = [one - other for other, one in zip(before, after, strict=False)]
        return statistics.median(pairs) if pairs else None

    def due(self, plan: Plan, spare_time: bool) -> list[Cell]:
        """Every open pair at first, then those without a verdict, the most telling before the others."""
        going = {pair: cells for pair, cells in self.pairs().items() if all(cell.is_open for cell in cells)}
        short = [cells for cells in going.values() if min(_launches(cell) for cell in cells) < FEWEST_LAUNCHES]
        if short:
            return [cell for cells in short for cell in cells]
        if not spare_time:
            return []
        share = (self._now() - self._began) / (plan.limit_seconds or math.inf)
        if self._looks.is_due(share):
            self._looks.look(self._log_ratios(), min(share, 1.0))
        unsure = {pair: found for pair, found in self._looks.found.items() if pair in going and not found.is_settled}
        telling = sorted(unsure, key=lambda pair: unsure[pair].nearness)[:_MOST_PAIRS]
        return [cell for pair in telling for cell in going[pair]]

    def records(self, started: journal.Started, interrupted: bool) -> tuple[list[Record], int]:
        """As of a run a side: each with its commit, and its backends under their plain names."""
        found, unreached = super().records(started, interrupted)
        # What ended before the other side was timed, too, is no news of either.
        sides = Counter((_plain(each.label), each.problem.key) for each in found)
        pairs = [each for each in found if not each.samples_ns or sides[_plain(each.label), each.problem.key] == 2]
        return [self._of_side(each) for each in pairs], unreached

    def _of_side(self, entry: Record) -> Record:
        side = self._names[entry.label]
        tree, name = self._trees[side], _plain(entry.label)
        run = f"{entry.run}-{SIDES[side]}"
        return replace(entry, run=run, label=name, backend=name, commit=tree.commit, dirty=tree.dirty)


class _Turns(Turns):
    """Turns in pairs."""

    most_per_turn = _MOST_PER_TURN

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        if course.plan.problems[0].device == "cpu":
            self.warmup_ns = _CPU_WARMUP_NS

    def next_turns(self, crew: Crew, launch: int, cells: list[Cell], late: bool) -> list[tuple[Cell, Question]]:
        """Both of every pair, until one has samples enough or time is up."""
        wanted = {(cell.index, _plain(cell.label)) for cell, _ in super().next_turns(crew, launch, cells, late)}
        if not late:
            wanted |= {
                (cell.index, _plain(cell.label))
                for cell in cells
                if len(cell.samples.get(cell.main, {}).get(launch, [])) < _MOST_SAMPLES
            }
        return [
            (cell, cell.main)
            for cell in cells
            if (cell.index, _plain(cell.label)) in wanted
            and cell.is_open
            and cell.main not in crew.unanswered.get(cell.label, ())
        ]

    def shuffle(self, turns: list[tuple[Cell, Question]], order: random.Random) -> None:
        """Pairs in drawn order, each side first as often as second: what a neighbour does meets both."""
        drawn: dict[str, float] = {}
        for cell, _ in turns:
            drawn.setdefault(_plain(cell.label), order.random())
        turns.sort(key=lambda turn: (drawn[_plain(turn[0].label)], order.random()))


class _Session(Session):
    """A session whose records go into one file a side."""

    def __init__(self, course: Course, board: _Board, files: Files) -> None:
        super().__init__(course, files.base, _Turns(course))
        self._board = board
        self._files = files

    def _finish(self, interrupted: bool) -> Summary:
        records, _ = self._board.records(self._course.started, interrupted)
        for entry in records:
            record.append(self._files.base if entry.run.endswith(SIDES[0]) else self._files.new, entry)
        self._course.log.close(remove=True)
        return Summary(
            self._course.started.run, records, None, self._warnings, self._course.ledger.effort(), interrupted
        )


def _plain(name: str) -> str:
    return name.partition(sources.MARK)[0]


def _launches(cell: Cell) -> int:
    return len(cell.launches(cell.main))


def _unfit(base: Tree, new: Tree) -> list[str]:
    return [
        f"{tree.title}: {why}; today's backends call its kernels and baselines"
        for tree in (base, new)
        if (why := sources.unfit(tree.path))
    ]


def _comparison(board: _Board, files: Files, threshold: float, notes: list[str]) -> Comparison:
    base, new = load(files.base), load(files.new)
    pairs = board.pairs()
    findings = {(pair[0], pairs[pair][0].problem.key): found for pair, found in board.findings().items()}
    rows: list[Row] = []
    for key in {**base.cells, **new.cells}:
        settled, _ = match(key, base.cells.get(key), new.cells.get(key))
        rows += settled
        found = findings.get((key.backend, key.work))
        if not settled and found is not None:
            rows.append(_row(found, key, base.cells[key], new.cells[key], threshold))
    rows.sort(key=lambda row: (ORDER.index(row.verdict), row.problem, row.backend))
    return Comparison(base, new, threshold, False, rows, notes, strict=True)


def _row(found: Finding, key: Key, before: compared.Cell, after: compared.Cell, threshold: float) -> Row:
    (question,) = before.timed.keys() & after.timed.keys()
    known = found.high < math.inf
    return Row(
        found.verdict,
        after.title,
        key.backend,
        question,
        key.machine,
        _reason(found, threshold),
        base_ns=math.exp(statistics.fmean(before.timed[question].units)),
        new_ns=math.exp(statistics.fmean(after.timed[question].units)),
        ratio=found.ratio,
        low=found.low if known else None,
        high=found.high if known else None,
        base_launches=found.launches,
        new_launches=found.launches,
    )


def _reason(found: Finding, threshold: float) -> str:
    if found.verdict == "SLOWER":
        return f"by at least {percent(found.low - 1)}"
    if found.verdict == "FASTER":
        return f"by at least {percent(1 - found.high)}"
    if found.verdict == "SAME":
        return f"within {percent(max(found.high - 1, 1 / found.low - 1))}"
    return f"neither beyond nor within {threshold:.1%} for certain; --budget gives it longer"
