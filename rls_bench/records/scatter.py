"""How far a cell's launches scatter, judged with the help of the other cells of its run.

Three launches give a variance two degrees of freedom: too few to find 5 % with. Cells of one run scatter alike, though
not equally, so each cell's variance is drawn towards the run's: an inverse-chi-square prior is fitted to all of them
and every variance becomes its posterior (Smyth, Linear models and empirical Bayes methods for assessing differential
expression, 2004, sections 3 and 6.2). The prior is fitted to what is left of the variances once the extremes are cut
back, as in Phipson et al., Robust hyperparameter estimation protects against hypervariable genes, 2016: one launch
that went astray in one cell must not blind the others.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

# The run counts as at most so many more degrees of freedom than a cell's own launches. Without a limit, cells that
# happen to agree would drown one that truly scatters.
MOST_PRIOR_FREEDOM = 4.0
# No cell is taken for steadier than this share of the run's mean variance: on a machine with two speeds all launches of
# a cell may meet the same one, and agree by luck.
OF_MEAN = 0.7
# Of that, what is left where all cells scatter together: a cell of one launch still needs a prior.
_LEAST_PRIOR = 0.05
# So much of either end tells nothing of how the run's cells scatter.
TRIM = 0.1
# Cells below this learn nothing about how cells differ.
FEWEST_CELLS = 5
# Of a log median: launches that agree to the last digit still leave an interval of a few millionths.
LEAST_VARIANCE = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Means:
    """Of each cell, in natural logarithms: the mean, its squared standard error and that one's degrees of freedom.

    ``variance`` is infinite where nothing tells how far the cell scatters: it has one launch, and too few neighbours.
    """

    mean: Floats
    variance: Floats
    freedom: Floats
    count: Floats


def means(cells: Sequence[Sequence[float]], groups: Sequence[Hashable] | None = None) -> Means:
    """Estimates of all ``cells`` together, one list of log medians a cell, one log median a unit (launch, or run).

    Cells of one group (a machine and a question) are taken to scatter alike; all are one where none is given. Of one
    with a unit that is no finite number nothing is known, and the others learn nothing of it.
    """
    count = np.array([len(units) for units in cells], dtype=np.float64)
    owner = np.repeat(np.arange(len(cells)), count.astype(int))
    values = np.fromiter((value for units in cells for value in units), np.float64, len(owner))
    mean = np.bincount(owner, values, len(cells)) / count
    with np.errstate(invalid="ignore"):
        squares = np.bincount(owner, (values - mean[owner]) ** 2, len(cells))
    freedom = count - 1
    variance = squares / np.maximum(freedom, 1)
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(group, len(numbers)) for group in groups or [None] * len(cells)], dtype=int)
    is_number = np.isfinite(mean)
    freedom[~is_number] = 0
    for number in range(len(numbers)):
        chosen = (member == number) & is_number
        if not chosen.any():
            continue
        members = [units for units, is_in in zip(cells, chosen, strict=True) if is_in]
        variance[chosen], freedom[chosen] = shrink(variance[chosen], freedom[chosen], shared_share(members))
    known = (freedom > 0) & is_number
    squared_error = np.where(known, np.maximum(variance, LEAST_VARIANCE) / count, np.inf)
    return Means(mean, squared_error, np.maximum(freedom, 1), count)


def shared_share(cells: Sequence[Sequence[float]]) -> float:
    """How much of the scatter all cells did together, from 0 to 1: what a launch did to all, each tells once more."""
    counts = [len(units) for units in cells]
    usual = max(set(counts), key=counts.count)
    values = np.array([units for units in cells if len(units) == usual])
    if usual < 2 or len(values) < FEWEST_CELLS:
        return 0.0
    values -= values.mean(axis=1, keepdims=True)
    # One cell that went astray must not pass for all.
    each, together = float(np.median((values**2).sum(axis=1))), float((np.median(values, axis=0) ** 2).sum())
    # The median of independent cells scatters, too.
    return min(max(together / max(each, LEAST_VARIANCE) - math.pi / 2 / len(values), 0.0), 1.0)


def shrink(variance: Floats, freedom: Floats, shared: float = 0.0) -> tuple[Floats, Floats]:
    """Posterior variances and their degrees of freedom, each [cells].

    ``variance`` [cells] is a cell's own, ``freedom`` [cells] its units less one; cells with none take the prior, which
    counts the less, the more of the scatter is ``shared``.
    """
    own = freedom > 0
    if own.sum() < FEWEST_CELLS:
        return variance, freedom
    # A cell whose launches agree to the last bit would be infinitely sure of itself.
    least = max(1e-5 * float(np.median(variance[own])), LEAST_VARIANCE)
    prior_variance, prior_freedom = _prior(np.maximum(variance[own], least), freedom[own])
    prior_freedom *= max(1 - shared, _LEAST_PRIOR)
    total = prior_freedom + freedom
    posterior = (prior_freedom * prior_variance + freedom * np.where(own, variance, 0.0)) / total
    return np.maximum(posterior, OF_MEAN * _trimmed_mean(variance[own])), total


def _prior(variance: Floats, freedom: Floats) -> tuple[float, float]:
    """Variance and degrees of freedom of the prior, by the moments of log variance, its extremes cut back."""
    half = freedom / 2
    centred = np.log(variance) - digamma(half) + np.log(half)
    kept = np.minimum(centred, np.sort(centred)[-1 - int(TRIM * len(centred))])
    excess = float(np.var(kept, ddof=1) - np.mean(polygamma(1, half)))
    prior_freedom = MOST_PRIOR_FREEDOM
    if excess > 0:
        prior_freedom = min(2 * _trigamma_inverse(excess), MOST_PRIOR_FREEDOM)
    half_prior = prior_freedom / 2
    return float(np.exp(np.mean(kept) + digamma(half_prior) - np.log(half_prior))), prior_freedom


def _trimmed_mean(values: Floats) -> float:
    """As scipy.stats.trim_mean, whose import would take the runner longer than all its statistics."""
    cut = int(TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _trigamma_inverse(value: float) -> float:
    """The y with trigamma(y) = value, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / polygamma(2, y)
        y += step
        if abs(step) < 1e-8 * y:
            break
    return float(y)
