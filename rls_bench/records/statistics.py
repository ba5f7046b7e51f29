"""Medians and ratios of latencies with intervals that treat process launches as the unit.

Samples of one process agree far better than two processes do, so an interval from pooled samples is too narrow. These
intervals stand on a bootstrap of two levels: launches resampled whole, and samples resampled within each, which bounds
the first from below where few launches happen to agree. Only standard errors are needed, and theirs have closed forms
(the ideal bootstrap, with infinitely many resamples), so nothing is drawn at random and needs a seed: the same samples
always give the same interval. Student's t widens it for the small number of launches. Sources: Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapters 5 and 12; Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8. Everything happens in logarithms, since noise multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, stdtrit

Launches = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval about it, all in the unit of what was given (or a plain ratio)."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval relative to the estimate: 0.01 is within 1 %."""
        return (self.high - self.low) / (2 * self.median)


def median_interval(launches: Launches, level: float = 0.95) -> Interval:
    """The geometric mean of the launches' medians, with its interval at ``level``.

    One list of positive samples a launch; empty launches don't count. With a single launch the interval speaks of that
    process alone and is too narrow for a comparison. Raises ValueError where there is no sample, or one that isn't
    positive and finite.
    """
    return _interval([_summary(launches)], [1], level)


def ratio_interval(base: Launches, new: Launches, level: float = 0.95) -> Interval:
    """``new / base`` of the same estimates: above 1 is slower where samples are times. Arguments as above.

    Degrees of freedom after Welch, since two backends need not scatter alike.
    """
    return _interval([_summary(new), _summary(base)], [1, -1], level)


def noise_floor(one: Launches, twin: Launches) -> float:
    """Relative difference of two labels that ran the same code; no smaller difference means anything."""
    return math.expm1(abs(_summary(one).mean - _summary(twin).mean))


@dataclass(frozen=True)
class _Summary:
    """Mean log median over launches, the squared standard error of that mean, and its degrees of freedom."""

    mean: float
    variance: float
    freedom: int


def _summary(launches: Launches) -> _Summary:
    logs = [_ordered_logs(samples) for samples in launches if len(samples)]
    if not logs:
        raise ValueError("launches: wanted at least one sample; got none")
    medians = [_median(values) for values in logs]
    within = fmean(_median_variance(values) for values in logs)
    count = len(logs)
    if count == 1:
        return _Summary(medians[0], within, max(len(logs[0]) - 1, 1))
    # The medians' own scatter holds both levels already; but few launches can agree by luck, so never claim to know
    # the mean better than the scatter within the launches allows.
    centre = fmean(medians)
    # Not the standard library's variance: its exact fractions take longer than all the rest.
    scatter = math.fsum((value - centre) ** 2 for value in medians) / (count - 1)
    return _Summary(centre, max(scatter, within) / count, count - 1)


def _ordered_logs(samples: Sequence[float]) -> NDArray[np.float64]:
    values = np.array(samples, dtype=np.float64)
    values.sort()
    if not 0 < values[0] <= values[-1] < math.inf:
        raise ValueError(f"samples: wanted positive finite numbers; got {values[0]:g} to {values[-1]:g}")
    return np.log(values)


def _median(ordered: NDArray[np.float64]) -> float:
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def _median_variance(ordered: NDArray[np.float64]) -> float:
    """Variance of the median of a resample of ``ordered``, exactly: an order statistic's weight is binomial."""
    weights = _median_weights(len(ordered))
    offsets = ordered - weights @ ordered
    return float(weights @ (offsets * offsets))


@lru_cache(maxsize=512)
def _median_weights(count: int) -> NDArray[np.float64]:
    """How likely the median of a resample of ``count`` values is each of the ordered values, [count].

    The h-th smallest of the resample is at most the k-th value exactly when at least h draws fall among the first k:
    P(Binomial(count, k / count) >= h). An even count averages the laws of its two middle values.
    """
    shares = np.arange(1, count + 1) / count
    middles = {(count + 1) // 2, count // 2 + 1}
    cumulative = np.mean([bdtrc(middle - 1, count, shares) for middle in middles], axis=0)
    cumulative[-1] = 1.0
    return np.diff(cumulative, prepend=0.0)


def _interval(summaries: list[_Summary], signs: list[int], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level: wanted a share between 0 and 1; got {level}")
    centre = sum(sign * summary.mean for sign, summary in zip(signs, summaries, strict=True))
    total = sum(summary.variance for summary in summaries)
    reach = 0.0
    if total > 0:
        # Welch-Satterthwaite.
        freedom = total**2 / sum(summary.variance**2 / summary.freedom for summary in summaries)
        reach = math.sqrt(total) * float(stdtrit(freedom, (1 + level) / 2))
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))
