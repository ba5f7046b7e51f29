"""How far a launch's median scatters in each cell, judged with the help of the run's other cells.

Three launches give a variance two degrees of freedom: too few to find 5 % with. Cells of one run scatter alike, though
not equally, so each cell's variance is drawn towards the run's: an inverse-chi-square prior is fitted to all of them
and every variance becomes its posterior (Smyth, Linear models and empirical Bayes methods for assessing differential
expression, 2004, sections 3 and 6.2). Each run has its own prior, since one may have been noisier than the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

# The run counts as at most so many more degrees of freedom than a cell's own launches. Without a limit, cells that
# happen to agree would drown one that truly scatters; simulated in tests/compare/test_bars.py.
MOST_PRIOR_FREEDOM = 4.0
# No cell is taken for steadier than this share of the run's mean variance: on a machine with two speeds, three launches
# may all meet the same one and agree by luck.
LEAST_SHARE = 0.25
# Cells below this learn nothing about how cells differ.
FEWEST_CELLS = 5

Floats = NDArray[np.float64]


def shrink(variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Posterior variances and their degrees of freedom, each [cells].

    ``variance`` [cells] is a cell's own, ``freedom`` [cells] its launches less one; cells with none take the prior.
    """
    own = freedom > 0
    if own.sum() < FEWEST_CELLS:
        return variance, freedom
    # A cell whose launches agree to the last bit would be infinitely sure of itself.
    least = max(1e-5 * float(np.median(variance[own])), 1e-12)
    prior_variance, prior_freedom = _prior(np.maximum(variance[own], least), freedom[own])
    total = prior_freedom + freedom
    posterior = (prior_freedom * prior_variance + freedom * np.where(own, variance, 0.0)) / total
    return np.maximum(posterior, LEAST_SHARE * float(variance[own].mean())), total


def _prior(variance: Floats, freedom: Floats) -> tuple[float, float]:
    """Variance and degrees of freedom of the prior, by the moments of log variance."""
    half = freedom / 2
    centred = np.log(variance) - digamma(half) + np.log(half)
    excess = float(np.var(centred, ddof=1) - np.mean(polygamma(1, half)))
    prior_freedom = MOST_PRIOR_FREEDOM
    if excess > 0:
        prior_freedom = min(2 * _trigamma_inverse(excess), MOST_PRIOR_FREEDOM)
    half_prior = prior_freedom / 2
    return float(np.exp(np.mean(centred) + digamma(half_prior) - np.log(half_prior))), prior_freedom


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
