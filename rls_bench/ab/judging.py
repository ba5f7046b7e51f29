"""Pairs of launches into verdicts, looked at again and again until each cell has one.

What a cell shows in one launch is the logarithm of new over base, both measured in it in turns: the launch's own luck,
a drift and what neighbours do are in both, and cancel. What still goes astray in single launches is trimmed (Yuen, The
two-sample trimmed t for unequal population variances, 1974). A cell is slower or faster only where it is so by more
than the threshold for certain (a minimum effect, as McCarthy and Smyth, 2009), the same only where it is within it for
certain (two one-sided tests, Schuirmann, 1987). Looks are allowed for: by a share t of the time they have spent t³ of
what may go wrong (Kim and DeMets, Design and analysis of group sequential tests, 1987). So are cells, all of which
are judged together (Benjamini and Hochberg, Controlling the false discovery rate, 1995): a backend that is slower on
several problems shows sooner.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from rls_bench.records.statistics import Estimate, estimates

# Chance that any cell of a run is called slower or faster where nothing has changed; and where all have changed by just
# the threshold. Where some have changed by more, the share of those called so that haven't.
FALSE_ALARMS = 0.01
FALSE_BEYOND = 0.05
# Chance that a cell is called the same where it isn't.
FALSE_SAME = 0.05
FEWEST_LAUNCHES = 3
# Of each end of a cell's launches, once there are enough to tell what went astray.
TRIM, FEWEST_TO_TRIM = 0.2, 10

# A look comes no sooner than at so many times the time of the one before: each costs the later ones. The last is at the
# run's end, and none comes so late that it would be sooner than that.
LATER = 1.2
_SPENDING = 3

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
        return share >= 1.0 or LATER * self._at <= share <= 1.0 / LATER

    def look(self, pairs: Mapping[Name, Sequence[float]], share: float) -> None:
        """Judge the cells that have no verdict; ``pairs`` are as in ``judge``, of all cells."""
        part = share**_SPENDING - self._at**_SPENDING
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
    found, margin = estimates(known), math.log1p(threshold)
    tested = {
        name: _Test(found[name], len(ratios), margin)
        for name, ratios in known.items()
        if len(ratios) >= FEWEST_LAUNCHES and found[name].variance < math.inf
    }
    changed = _together([test.unchanged for test in tested.values()])
    beyond = _together([test.at_margin for test in tested.values()])
    findings = {
        name: Finding("AMBIGUOUS", math.exp(found[name].mean), 0.0, math.inf, len(known[name])) for name in known
    }
    for (name, test), is_none, is_within in zip(tested.items(), changed, beyond, strict=True):
        is_beyond = is_none <= FALSE_ALARMS * part and is_within <= FALSE_BEYOND * part
        findings[name] = test.finding(is_beyond, part, len(tested))
    return findings


def _together(chances: list[float]) -> list[float]:
    """Each chance as it is among all of them."""
    return [float(each) for each in false_discovery_control(chances)] if chances else []


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


class _Test:
    """One cell's estimate held against no change, and against the margin on its own side of it."""

    def __init__(self, found: Estimate, launches: int, margin: float) -> None:
        self._mean, self._error = found.mean, math.sqrt(found.variance)
        self._freedom = max(found.freedom - 2 * _cut(launches), 1.0)
        self._launches, self._margin = launches, margin

    @property
    def unchanged(self) -> float:
        """The chance of as much, to either side, where nothing has changed."""
        return min(1.0, 2 * self._beyond(0.0))

    @property
    def at_margin(self) -> float:
        """The chance of as much where the change is as large as the margin, which is to one side."""
        return self._beyond(self._margin)

    def finding(self, is_beyond: bool, part: float, cells: int) -> Finding:
        """``is_beyond``: whether it is slower or faster; what isn't may still be the same, by ``part``."""
        size, within = abs(self._mean), self._reach(FALSE_SAME * part)
        verdict: Verdict = "AMBIGUOUS"
        if is_beyond:
            verdict = "SLOWER" if self._mean > 0 else "FASTER"
        elif size + within < self._margin:
            verdict = "SAME"
        # If it were the first of all cells to be told from the others.
        alone = part / cells
        changed = self._reach(FALSE_ALARMS / 2 * alone) - self._margin
        beyond = max(self._reach(FALSE_BEYOND * alone), changed)
        missing = self._margin + beyond - size
        if size <= self._margin:
            missing = min(size + within - self._margin, missing)
        low, high = math.exp(self._mean - within), math.exp(self._mean + within)
        nearness = missing / self._error if self._error else -math.inf
        return Finding(verdict, math.exp(self._mean), low, high, self._launches, nearness)

    def _beyond(self, margin: float) -> float:
        distance = abs(self._mean) - margin
        if self._error == 0.0:
            return float(distance <= 0.0)
        return float(student.sf(distance / self._error, self._freedom))

    def _reach(self, chance: float) -> float:
        return float(student.isf(chance, self._freedom)) * self._error
