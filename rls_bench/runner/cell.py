"""One cell of a run, one label on one problem: what is known of it, and whether it wants more samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Status
from rls_bench.records.scatter import FEWEST_CELLS
from rls_bench.records.statistics import (
    Interval,
    blur,
    estimates,
    log_medians,
    looked,
    median_interval,
    within_launch,
)
from rls_bench.runner import journal

# What every cell gets in every launch, whatever the budget says; one that an earlier launch raced out gets fewer.
LEAST_SAMPLES = 3
LEAST_RACED = 1
# An interval from fewer samples than this ends nothing.
ENOUGH_SAMPLES = 6
MOST_SAMPLES = 60
# A neighbour's job disturbs one turn as a whole: only what two turns agree on races a cell out.
LEAST_TURNS = 2
# A cell with too few neighbours to tell how far launches scatter may have few that agree by luck.
LEAST_LAUNCHES_ALONE = 5
# Slower than this many times the best, beyond doubt: sampling further tells nothing that a user needs.
RACE = 1.5


@dataclass(eq=False)
class Cell:
    """A label (a backend, or its A/A twin) on a problem; filled in by the journal's entries, live or read back."""

    label: str
    backend: str
    index: int
    problem: Problem
    questions: tuple[Question, ...]
    status: Status | None = None
    reason: str = ""
    checked: journal.Checked | None = None
    samples: dict[Question, dict[int, list[float]]] = field(default_factory=dict)
    # In how many turns each launch sampled each question.
    turns: Counter[tuple[Question, int]] = field(default_factory=Counter)
    warmups: dict[int, list[float]] = field(default_factory=dict)
    rejected: int = 0
    note: str = ""
    raced: bool = False
    raced_in: int = 0
    is_recorded: bool = False

    def apply(self, entry: journal.Checked | journal.Took | journal.Ended) -> None:
        """Take in what happened."""
        if isinstance(entry, journal.Checked):
            self.checked = entry
            self.note = entry.note
        elif isinstance(entry, journal.Ended):
            self.status, self.reason = entry.status, entry.reason
        else:
            self.samples.setdefault(entry.question, {}).setdefault(entry.launch, []).extend(entry.samples_ns)
            self.turns[entry.question, entry.launch] += bool(entry.samples_ns)
            self.warmups.setdefault(entry.launch, []).extend(entry.warmup_ns)
            self.rejected += entry.rejected
            self.note = self.note or entry.note

    def forget(self, launch: int) -> None:
        """Drop what ``launch`` has taken so far."""
        for by_launch in self.samples.values():
            by_launch.pop(launch, None)
        self.turns = Counter({key: count for key, count in self.turns.items() if key[1] != launch})
        self.warmups.pop(launch, None)
        if self.raced_in == launch:
            self.raced, self.raced_in = False, 0

    @property
    def is_open(self) -> bool:
        """Whether there is anything left to find out: it hasn't ended, and a latency would mean something."""
        return self.status is None and not self.is_recorded and (self.checked is None or self.checked.measurable)

    @property
    def main(self) -> Question:
        """The question that is compared by: the first that the cell can answer."""
        return self.answered()[0]

    def launches(self, question: Question) -> list[list[float]]:
        """The samples of each launch that has any, in order."""
        by_launch = self.samples.get(question, {})
        return [by_launch[launch] for launch in sorted(by_launch) if by_launch[launch]]

    def ok_launches(self) -> list[list[float]]:
        """The main question's launches of a cell that hasn't failed."""
        return [] if self.status else self.launches(self.main)

    def finished_launches(self) -> int:
        """Launches in which every question that the cell can answer has its least number of samples."""
        counts = [
            sum(len(taken) >= self.least(launch) for launch, taken in self.samples.get(question, {}).items())
            for question in self.answered()
        ]
        return min(counts, default=0)

    def least(self, launch: int) -> int:
        """The least number of samples that ``launch`` takes for each question."""
        return LEAST_RACED if self.raced and launch > self.raced_in else LEAST_SAMPLES

    def answered(self) -> list[Question]:
        """The questions that have samples, or all of them before the first sample."""
        return [question for question in self.questions if question in self.samples] or list(self.questions)

    def interval(self, question: Question | None = None) -> Interval | None:
        """Of all launches so far; None before the first sample."""
        launches = self.launches(question or self.main)
        return median_interval(launches) if launches else None

    def is_narrow(self, target: float) -> bool:
        """Whether this cell is narrow without neighbours to vouch for it; see ``narrow``."""
        return self in narrow([self], target, 1)

    def wants(self, question: Question, launch: int, target: float, late: bool) -> bool:
        """Whether this launch should take another sample for ``question``."""
        samples = self.samples.get(question, {}).get(launch, [])
        if not self.is_open:
            return False
        if len(samples) < self.least(launch):
            return True
        if late or self.raced or len(samples) >= MOST_SAMPLES:
            return False
        return len(samples) < ENOUGH_SAMPLES or within_launch(samples).half_width > target


def narrow(cells: Iterable[Cell], target: float, launches: int) -> set[Cell]:
    """Those whose every answered question has samples enough and an interval over launches within ``target``.

    How far launches scatter is judged from all cells of a question together, and the interval allows for how often it
    was looked at: after ``launches`` of them, and after each one more.
    """
    cells = [cell for cell in cells if cell.samples]
    wide: set[Cell] = set()
    for question in dict.fromkeys(question for cell in cells for question in cell.answered()):
        taken = {cell: cell.launches(question) for cell in cells if question in cell.answered()}
        enough = {cell: found for cell, found in taken.items() if sum(map(len, found)) >= ENOUGH_SAMPLES}
        wide |= taken.keys() - enough.keys()
        found = estimates(
            {cell: log_medians(samples) for cell, samples in enough.items()},
            {cell: blur(samples) for cell, samples in enough.items()},
        )
        is_alone = len(found) < FEWEST_CELLS
        for cell, latency in found.items():
            count = len(enough[cell])
            level = looked(0.95, looks(count, launches))
            if (is_alone and count < LEAST_LAUNCHES_ALONE) or not latency.interval(level).half_width <= target:
                wide.add(cell)
    return set(cells) - wide


def looks(count: int, launches: int) -> int:
    """How often ``count`` launches were looked at to stop, where the first look is after ``launches``."""
    return max(1, count - launches + 1)


def shared_launches(one: Cell, other: Cell, question: Question) -> tuple[list[list[float]], list[list[float]]]:
    """The samples of both in the launches that both have, in order."""
    mine, theirs = one.samples.get(question, {}), other.samples.get(question, {})
    both = [launch for launch in sorted(mine.keys() & theirs.keys()) if mine[launch] and theirs[launch]]
    return [mine[launch] for launch in both], [theirs[launch] for launch in both]


def race(cells: Iterable[Cell], launch: int) -> list[Cell]:
    """Mark the cells of one problem whose interval lies wholly above 1.5 × the best's; returns those newly marked.

    They race by the first question that all of them can answer. The intervals are of this launch alone, and of two
    turns at least: half as much again is far more than launches differ by, but not more than a neighbour does to one
    turn. A cell that an earlier launch marked, and that is no longer so far behind in this one, is in the race again.
    """
    racing = [cell for cell in cells if cell.is_open]
    questions = [question for cell in racing[:1] for question in cell.questions]
    question = next((one for one in questions if all(one in cell.samples for cell in racing)), None)
    if question is None:
        return []
    samples = {cell: cell.samples[question].get(launch, []) for cell in racing}
    settled = {cell: taken for cell, taken in samples.items() if len(taken) >= LEAST_SAMPLES}
    settled = {cell: taken for cell, taken in settled.items() if cell.turns[question, launch] >= LEAST_TURNS}
    if not settled:
        return []
    intervals = {cell: within_launch(taken) for cell, taken in settled.items()}
    best = min(intervals.values(), key=lambda interval: interval.median)
    for cell, taken in samples.items():
        if cell.raced and cell.raced_in < launch and taken and median(taken) <= RACE * best.high:
            cell.raced = False
    lost = [cell for cell, interval in intervals.items() if interval.low > RACE * best.high and not cell.raced]
    for cell in lost:
        cell.raced, cell.raced_in = True, launch
    return lost


def stopped(
    cell: Cell, is_narrow: bool, interrupted: bool
) -> Literal["", "interval", "budget", "raced", "interrupted"]:
    """Why sampling of an ok cell ended."""
    if not cell.samples:
        return ""
    if cell.raced:
        return "raced"
    if is_narrow:
        return "interval"
    return "interrupted" if interrupted else "budget"
