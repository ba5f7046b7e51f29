"""Pairs of launches into verdicts, looked at again and again until each cell has one.

What a cell shows in one launch is the logarithm of new over base, both measured in it in turns: the launch's own luck,
a drift and what neighbours do are in both, and cancel. What still goes astray in single launches is trimmed (Yuen, The
two-sample trimmed t for unequal population variances, 1974). A cell is slower or faster only where it is so by more
than the threshold for certain (a minimum effect, as McCarthy and Smyth, 2009), the same only where it is within it for
certain (two one-sided tests, Schuirmann, 1987). Looks and cells are allowed for: by a share t of the run's time, looks
have spent t² of what may go wrong (Kim and DeMets, Design and analysis of group sequential tests, 1987), and each of
the cells its part of that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from scipy.stats import t as student

from rls_bench.records.statistics import Estimate, estimates

# Chance that any cell of a run is called slower or faster where nothing has changed; and where a change is just as
# large as the threshold.
FALSE_ALARMS = 0.01
FALSE_BEYOND = 0.05
# Chance that a cell is called the same where it isn't.
FALSE_SAME = 0.05
FEWEST_LAUNCHES = 3
# Of each end of a cell's launches, once there are enough to tell what went astray.
TRIM, FEWEST_TO_TRIM = 0.2, 10

# A look comes no sooner than at so many times the time of the one before: each costs the later ones.
LATER = 1.2

Name = TypeVar("Name", bound=Hashable)
Verdict = Literal["SLOWER", "FASTER", "SAME", "AMBIGUOUS"]


@dataclass(frozen=True)
class Finding:
    """A cell's verdict at its last look; ``ratio`` is new over base, with its 90 % interval corrected for looks.

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


class Looks(Generic[Name]):
    """One look after another at the cells of a run; of a verdict nothing is taken back."""

    def __init__(self, threshold: float) -> None:
        """``threshold`` is relative, as in ``judge``."""
        self.found: dict[Name, Finding] = {}
        self._threshold = threshold
        self._at = 0.0

    def is_due(self, share: float) -> bool:
        """Whether a look is worth what it costs at this ``share`` of the run's time, from 0 to 1."""
        return share >= min(LATER * self._at, 1.0)

    def look(self, pairs: Mapping[Name, Sequence[float]], share: float) -> None:
        """Judge the cells that have no verdict; ``pairs`` are as in ``judge``, of all cells."""
        part = share**2 - self._at**2
        if part <= 0.0:
            return
        self._at = share
        settled = {name: finding for name, finding in self.found.items() if finding.is_settled}
        self.found = judge(pairs, self._threshold, part) | settled


def judge(pairs: Mapping[Name, Sequence[float]], threshold: float, part: float = 1.0) -> dict[Name, Finding]:
    """Judge every cell by its log ratios, one a launch; ``threshold`` is relative. Cells are taken to scatter alike.

    A look of several may spend ``part`` of what may go wrong.
    """
    known = {name: _trimmed(ratios) for name, ratios in pairs.items() if ratios}
    found = estimates(known)
    return {
        name: _judged(found[name], len(ratios), part / len(known), part, math.log1p(threshold))
        for name, ratios in known.items()
    }


def _trimmed(ratios: Sequence[float]) -> list[float]:
    """As many values, whose plain mean and standard error are the trimmed mean of ``ratios`` and Yuen's error of it."""
    ordered, count = np.sort(np.asarray(ratios, dtype=np.float64)), len(ratios)
    cut = _cut(count)
    if cut == 0 or not np.isfinite(ordered).all():
        return list(ratios)
    kept = count - 2 * cut
    drawn_in = np.clip(ratios, ordered[cut], ordered[-1 - cut])
    wider = math.sqrt(count * (count - 1) / (kept * (kept - 1)))
    values: list[float] = (ordered[cut:-cut].mean() + wider * (drawn_in - drawn_in.mean())).tolist()
    return values


def _cut(launches: int) -> int:
    return int(TRIM * launches) if launches >= FEWEST_TO_TRIM else 0


def _judged(found: Estimate, launches: int, alarms: float, same: float, margin: float) -> Finding:
    if launches < FEWEST_LAUNCHES or found.variance == math.inf:
        return Finding("AMBIGUOUS", math.exp(found.mean), 0.0, math.inf, launches)
    freedom = max(found.freedom - 2 * _cut(launches), 1.0)
    error = math.sqrt(found.variance)
    size = abs(found.mean)
    # Half of either to either side.
    changed = float(student.isf(FALSE_ALARMS / 2 * alarms, freedom)) * error
    beyond = max(float(student.isf(FALSE_BEYOND / 2 * alarms, freedom)) * error, changed - margin)
    within = float(student.isf(FALSE_SAME * same, freedom)) * error
    verdict: Verdict = "AMBIGUOUS"
    if size - beyond > margin:
        verdict = "SLOWER" if found.mean > 0 else "FASTER"
    elif size + within < margin:
        verdict = "SAME"
    missing = (margin + beyond - size) if size > margin else min(size + within - margin, margin + beyond - size)
    low, high = math.exp(found.mean - within), math.exp(found.mean + within)
    return Finding(verdict, math.exp(found.mean), low, high, launches, missing / error)
