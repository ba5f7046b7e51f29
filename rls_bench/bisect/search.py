"""Halves the candidates until one is left: each is measured against the good one, and lies nearer to it or to the bad.

The bad one is measured first. How much slower it is says where the line is: half of that, in logarithms, so that a
candidate that has the slowdown lies as far above it as one that hasn't lies below. A candidate that nobody can say
anything of for certain is measured again for longer, and in the end goes to the nearer side, which the result says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rls_bench.errors import RlsBenchError

# Each time twice as long as before.
_ATTEMPTS = 3

Side = Literal["good", "bad", "skip"]


class Unbuildable(Exception):
    """A candidate that cannot be measured, and why."""


@dataclass(frozen=True)
class Measured:
    """A candidate over the good one, with its interval, and the verdict at the threshold that was asked for."""

    verdict: Literal["SLOWER", "FASTER", "SAME", "AMBIGUOUS"]
    ratio: float
    low: float | None = None
    high: float | None = None

    @property
    def title(self) -> str:
        """``1.052 [1.048, 1.056] ×``."""
        interval = f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None and self.high is not None else ""
        return f"{self.ratio:.3f}{interval} ×"


# Measures a candidate by name: whether it is slower by a threshold, trying so much harder. Raises Unbuildable.
Measure = Callable[[str, float, float], Measured]


@dataclass(frozen=True)
class Ruling:
    """What is held of a candidate; not ``is_certain`` where it was only nearer to one side."""

    candidate: str
    side: Side
    measured: Measured | None = None
    is_certain: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """The first bad candidate and the last good one; ``skipped`` lie between them, and any may be the first."""

    last_good: str
    first_bad: str
    slowdown: Measured
    skipped: tuple[str, ...] = ()
    rulings: list[Ruling] = field(default_factory=list)

    @property
    def is_certain(self) -> bool:
        """Whether one candidate is left, and both it and the one before lie on their side for certain."""
        ends = [ruling for ruling in self.rulings if ruling.candidate in (self.last_good, self.first_bad)]
        return not self.skipped and all(ruling.is_certain for ruling in ends)


def search(
    candidates: Sequence[str],
    measure: Measure,
    threshold: float,
    told: Callable[[Ruling, int], None] = lambda ruling, left: None,
) -> Found:
    """The first of ``candidates`` that is slower than the first of all by what the last one is; the last must be.

    ``told`` hears each ruling, and how many candidates are left. Raises RlsBenchError where the last one isn't slower
    by ``threshold`` for certain.
    """
    if len(candidates) < 2:
        raise RlsBenchError("bisect: wanted the good one before the bad one; got one and the same")
    slowdown = _slowdown(candidates, measure, threshold)
    rulings = [Ruling(candidates[-1], "bad", slowdown)]
    low, high = 0, len(candidates) - 1
    told(rulings[0], high - 1)
    line = math.sqrt(slowdown.ratio) - 1
    skipped: set[int] = set()
    while left := [place for place in range(low + 1, high) if place not in skipped]:
        middle = min(left, key=lambda place: abs(2 * place - low - high))
        ruling = _rule(candidates[middle], measure, line)
        rulings.append(ruling)
        if ruling.side == "good":
            low = middle
        elif ruling.side == "bad":
            high = middle
        else:
            skipped.add(middle)
        told(ruling, len([place for place in range(low + 1, high) if place not in skipped]))
    between = tuple(candidates[place] for place in range(low + 1, high))
    own = next(ruling.measured for ruling in rulings if ruling.candidate == candidates[high])
    return Found(candidates[low], candidates[high], own or slowdown, between, rulings)


def _slowdown(candidates: Sequence[str], measure: Measure, threshold: float) -> Measured:
    """How much slower the bad one is."""
    found: Measured | None = None
    for attempt in range(_ATTEMPTS):
        try:
            found = measure(candidates[-1], threshold, 2.0**attempt)
        except Unbuildable as error:
            raise RlsBenchError(f"bisect: {candidates[0]} and {candidates[-1]} cannot be measured: {error}") from error
        if found.verdict != "AMBIGUOUS":
            break
    assert found is not None
    if found.verdict != "SLOWER":
        raise RlsBenchError(
            f"bisect: wanted {candidates[-1]} to be slower than {candidates[0]} by more than {threshold:.1%}; "
            f"it takes {found.title}: {found.verdict.lower()}"
        )
    return found


def _rule(candidate: str, measure: Measure, line: float) -> Ruling:
    found: Measured | None = None
    for attempt in range(_ATTEMPTS):
        try:
            found = measure(candidate, line, 2.0**attempt)
        except Unbuildable as error:
            return Ruling(candidate, "skip", reason=str(error))
        if found.verdict != "AMBIGUOUS":
            return Ruling(candidate, "bad" if found.verdict == "SLOWER" else "good", found)
    assert found is not None
    return Ruling(candidate, "bad" if found.ratio > 1 + line else "good", found, is_certain=False)
