"""One cell of a run, one label on one problem: what is known of it, and whether it wants more samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Status
from rls_bench.records.statistics import Interval, median_interval
from rls_bench.runner import journal

# What every cell gets in every launch, whatever the budget says; one that an earlier launch raced out gets fewer.
LEAST_SAMPLES = 3
LEAST_RACED = 1
# An interval from fewer samples than this ends nothing.
ENOUGH_SAMPLES = 6
MOST_SAMPLES = 60
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
            self.warmups.setdefault(entry.launch, []).extend(entry.warmup_ns)
            self.rejected += entry.rejected
            self.note = self.note or entry.note

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
        """Whether every question has samples enough, and its interval over launches is within ``target``."""
        # A lone sample has an interval of no width at all.
        return all(
            sum(map(len, taken := self.launches(question))) >= ENOUGH_SAMPLES
            and median_interval(taken).half_width <= target
            for question in self.answered()
        )

    def wants(self, question: Question, launch: int, target: float, late: bool) -> bool:
        """Whether this launch should take another sample for ``question``."""
        samples = self.samples.get(question, {}).get(launch, [])
        if not self.is_open:
            return False
        if len(samples) < self.least(launch):
            return True
        if late or self.raced or len(samples) >= MOST_SAMPLES:
            return False
        return len(samples) < ENOUGH_SAMPLES or median_interval([samples]).half_width > target


def race(cells: Iterable[Cell], launch: int) -> list[Cell]:
    """Mark the cells of one problem whose interval lies wholly above 1.5 × the best's; returns those newly marked.

    They race by the first question that all of them can answer. The intervals are of this launch alone: half as much
    again is far more than launches differ by.
    """
    racing = [cell for cell in cells if cell.is_open]
    questions = [question for cell in racing[:1] for question in cell.questions]
    shared = [question for question in questions if all(question in cell.samples for cell in racing)]
    samples = {cell: cell.samples[question].get(launch, []) for question in shared[:1] for cell in racing}
    intervals = {cell: median_interval([taken]) for cell, taken in samples.items() if len(taken) >= LEAST_SAMPLES}
    if not intervals:
        return []
    best = min(intervals.values(), key=lambda interval: interval.median)
    lost = [cell for cell, interval in intervals.items() if interval.low > RACE * best.high and not cell.raced]
    for cell in lost:
        cell.raced, cell.raced_in = True, launch
    return lost


def stopped(cell: Cell, target: float, interrupted: bool) -> Literal["", "interval", "budget", "raced", "interrupted"]:
    """Why sampling of an ok cell ended."""
    if not cell.samples:
        return ""
    if cell.raced:
        return "raced"
    if cell.is_narrow(target):
        return "interval"
    return "interrupted" if interrupted else "budget"
