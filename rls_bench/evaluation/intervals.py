"""Accuracies with their intervals at 95 %, over training seeds or over items, and the choice of λ that they allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and the ends of its interval, in the unit of what was given."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]" if math.isfinite(self.low) else f"{self.mean:.1f}"


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean of one value a seed, with Student's t; no interval (NaN) from a single seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def of_proportion(right: int, total: int) -> Interval:
    """Percent right of ``total`` independent items, with Wilson's interval."""
    interval = stats.binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return Interval(100 * right / total, 100 * interval.low, 100 * interval.high)


def least_within_error(accuracies: Mapping[float, float], total: int) -> float:
    """The least λ whose accuracy (percent of ``total`` items) lies within one standard error of the best.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984): of strengths that a
    calibration cannot tell apart, the one that disturbs the model least.
    """
    best = max(accuracies.values())
    error = 100 * math.sqrt(best / 100 * (1 - best / 100) / total)
    return min(strength for strength, accuracy in accuracies.items() if accuracy >= best - error)
