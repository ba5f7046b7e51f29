"""Ratios of latency with intervals, many cells at once, launches (or whole runs, where there are several) as the unit.

A cell's estimate is the difference of its two sides' mean log medians, its interval Welch's, on variances shrunk
towards the run's (see records/scatter.py). Whether a difference is significant is decided for all cells together
(Benjamini and Hochberg, 1995): among identical sources the chance of any false alarm stays at FALSE_ALARMS.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rls_bench.records.scatter import Floats, means

# Two one-sided tests at 5 %, against the near and the far side of the threshold (Schuirmann, 1987).
LEVEL = 0.90
# Chance that identical sources show any difference at all; half of those would be slower.
FALSE_ALARMS = 0.005
# Chance that sources within the threshold are found beyond it, where the caller asks for that promise.
FALSE_EXCESS = 0.01
# One launch knows nothing of the next; two are the least that may vote.
FEWEST_UNITS = 2

# One list of log medians a cell, one log median a unit.
Cells = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Ratios:
    """For each cell, in natural logarithms: means of both sides, half the interval of their difference, its error.

    ``reach`` is infinite where a side has fewer than FEWEST_UNITS, or a clock so coarse that all samples read the same.
    ``significant`` cells differ at all, ``excessive`` ones by more than the margin; both among all cells together.
    """

    base: Floats
    new: Floats
    reach: Floats
    error: Floats
    significant: NDArray[np.bool_]
    excessive: NDArray[np.bool_]


def ratios(
    base: Cells,
    new: Cells,
    groups: Sequence[Hashable] | tuple[Sequence[Hashable], Sequence[Hashable]],
    margin: float = 0.0,
    blurs: Sequence[float] | None = None,
) -> Ratios:
    """Judge ``new`` against ``base``, cell by cell; ``margin`` is a logarithm, ``blurs`` a clock's share of both sides.

    Cells of one group (a machine and a question) are taken to scatter alike; a pair of lists groups each side its own
    way. ``excessive`` is the test of a minimum effect: McCarthy and Smyth, Testing significance relative to a
    fold-change threshold is a TREAT, 2009.
    """
    sides = groups if isinstance(groups, tuple) else (groups, groups)
    one, other = (means(cells, names) for cells, names in zip((base, new), sides, strict=True))
    variance = one.variance + other.variance
    with np.errstate(invalid="ignore"):
        # Welch-Satterthwaite.
        freedom = variance**2 / (one.variance**2 / one.freedom + other.variance**2 / other.freedom)
    blurred = np.zeros(len(base)) if blurs is None else np.asarray(blurs)
    enough = (np.minimum(one.count, other.count) >= FEWEST_UNITS) & np.isfinite(variance) & np.isfinite(blurred)
    error, freedom = np.where(enough, np.sqrt(variance), 1.0), np.where(enough, freedom, 1.0)
    # A clock's step moves the mean by up to ``blurred``, however many launches there are.
    size = np.maximum(np.abs(other.mean - one.mean) - np.where(enough, blurred, 0.0), 0.0)
    apart = np.where(enough, 2 * stats.t.sf(size / error, freedom), 1.0)
    beyond = stats.t.sf((size - margin) / error, freedom) + stats.t.sf((size + margin) / error, freedom)
    return Ratios(
        one.mean,
        other.mean,
        np.where(enough, stats.t.ppf((1 + LEVEL) / 2, freedom) * error + blurred, np.inf),
        np.where(enough, error, np.inf),
        stats.false_discovery_control(apart) < FALSE_ALARMS,
        stats.false_discovery_control(np.where(enough, np.minimum(beyond, 1.0), 1.0)) < FALSE_EXCESS,
    )
