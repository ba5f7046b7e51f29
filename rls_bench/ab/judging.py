"""Pairs of launches into verdicts, looked at after every launch until each cell has one.

What a cell shows in one launch is the logarithm of new over base, both measured in it in turns: the launch's own luck,
a drift and what neighbours do are in both, and cancel. A cell is slower or faster only where it is so by more than the
threshold for certain (a minimum effect, as McCarthy and Smyth, 2009), the same only where it is within it for certain
(two one-sided tests, Schuirmann, 1987). Looks and cells are allowed for: look k spends a share of 1 / (k (k + 1)),
which sum to one however many there are, and each of the cells its part of that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.stats import t as student

from rls_bench.records.statistics import Estimate, estimates

# Chance that any cell of a run is called slower or faster where none is by more than the threshold.
FALSE_ALARMS = 0.01
# Chance that a cell is called the same where it isn't.
FALSE_SAME = 0.05
FEWEST_LAUNCHES = 3

Name = TypeVar("Name", bound=Hashable)
Verdict = Literal["SLOWER", "FASTER", "SAME", "AMBIGUOUS"]


@dataclass(frozen=True)
class Finding:
    """A cell's verdict so far; ``ratio`` is new over base, with its 90 % interval corrected for looks.

    ``nearness`` says how many standard errors are missing to a verdict: less is more telling.
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    launches: int
    nearness: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether more launches would tell nothing new."""
        return self.verdict != "AMBIGUOUS"


def judge(pairs: Mapping[Name, Sequence[float]], threshold: float) -> dict[Name, Finding]:
    """Judge every cell by its log ratios, one a launch; ``threshold`` is relative. Cells are taken to scatter alike."""
    known = {name: ratios for name, ratios in pairs.items() if ratios}
    found = estimates(known)
    return {
        name: _judged(found[name], len(ratios), len(known), math.log1p(threshold)) for name, ratios in known.items()
    }


def _judged(found: Estimate, launches: int, cells: int, margin: float) -> Finding:
    if launches < FEWEST_LAUNCHES or found.variance == math.inf:
        return Finding("AMBIGUOUS", math.exp(found.mean), 0.0, math.inf, launches)
    look = launches - FEWEST_LAUNCHES + 1
    share = 1 / (look * (look + 1))
    error = math.sqrt(found.variance)
    size = abs(found.mean)
    # Half of the alarms to either side.
    beyond = float(student.isf(FALSE_ALARMS / 2 * share / cells, found.freedom)) * error
    within = float(student.isf(FALSE_SAME * share, found.freedom)) * error
    verdict: Verdict = "AMBIGUOUS"
    if size - beyond > margin:
        verdict = "SLOWER" if found.mean > 0 else "FASTER"
    elif size + within < margin:
        verdict = "SAME"
    missing = (margin + beyond - size) if size > margin else min(size + within - margin, margin + beyond - size)
    low, high = math.exp(found.mean - within), math.exp(found.mean + within)
    return Finding(verdict, math.exp(found.mean), low, high, launches, missing / error)
