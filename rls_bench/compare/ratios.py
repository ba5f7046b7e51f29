"""Ratios of latency with intervals, many cells at once, launches as the unit.

A cell's estimate is the difference of its two sides' mean log medians, its interval Welch's, on variances shrunk
towards the run's (see shrinkage.py). Whether a difference is significant is decided for all cells together
(Benjamini and Hochberg, 1995): among identical sources the chance of any false alarm stays at FALSE_ALARMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rls_bench.compare.shrinkage import shrink

# Two one-sided tests at 5 %, against the near and the far side of the threshold (Schuirmann, 1987).
LEVEL = 0.90
# Chance that identical sources show any difference at all; half of those would be slower.
FALSE_ALARMS = 0.005
# One launch knows nothing of the next; two are the least that may vote.
FEWEST_LAUNCHES = 2
# Of a log median: launches that agree to the last digit still leave an interval of a few millionths.
LEAST_VARIANCE = 1e-12

Floats = NDArray[np.float64]
# One list of log medians a cell, one log median a launch.
Cells = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Ratios:
    """For each cell, in natural logarithms: means of both sides, and half the interval of their difference.

    ``reach`` is infinite where a side has fewer than FEWEST_LAUNCHES.
    """

    base: Floats
    new: Floats
    reach: Floats
    significant: NDArray[np.bool_]


def ratios(base: Cells, new: Cells, groups: Sequence[str]) -> Ratios:
    """Judge ``new`` against ``base``, cell by cell; cells of one group (a question) are taken to scatter alike."""
    group_of = np.asarray(groups)
    base_mean, base_variance, base_freedom = _summarise(base, group_of)
    new_mean, new_variance, new_freedom = _summarise(new, group_of)
    variance = base_variance + new_variance
    # Welch-Satterthwaite.
    freedom = variance**2 / (base_variance**2 / base_freedom + new_variance**2 / new_freedom)
    error = np.sqrt(variance)
    enough = np.minimum(_counts(base), _counts(new)) >= FEWEST_LAUNCHES
    chance = np.where(enough, 2 * stats.t.sf(np.abs(new_mean - base_mean) / error, freedom), 1.0)
    return Ratios(
        base_mean,
        new_mean,
        np.where(enough, stats.t.ppf((1 + LEVEL) / 2, freedom) * error, np.inf),
        stats.false_discovery_control(chance) < FALSE_ALARMS,
    )


def _summarise(cells: Cells, group_of: NDArray[np.str_]) -> tuple[Floats, Floats, Floats]:
    """Mean log median, its squared standard error and the degrees of freedom of that, each [cells]."""
    count = _counts(cells)
    owner = np.repeat(np.arange(len(cells)), count.astype(int))
    values = np.fromiter((value for launches in cells for value in launches), np.float64, len(owner))
    mean = np.bincount(owner, values, len(cells)) / count
    squares = np.bincount(owner, (values - mean[owner]) ** 2, len(cells))
    variance, freedom = squares / np.maximum(count - 1, 1), count - 1
    for group in np.unique(group_of):
        chosen = group_of == group
        variance[chosen], freedom[chosen] = shrink(variance[chosen], freedom[chosen])
    return mean, np.maximum(variance, LEAST_VARIANCE) / count, np.maximum(freedom, 1)


def _counts(cells: Cells) -> Floats:
    return np.array([len(launches) for launches in cells], dtype=np.float64)
