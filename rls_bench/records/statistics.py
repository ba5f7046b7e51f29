"""Medians and ratios of latencies with intervals that treat process launches as the unit.

Samples of one process agree far better than two processes do, so an interval from pooled samples is too narrow. Each
launch gives one number, the logarithm of its median, for noise multiplies; labels that met the same launch are averaged
first, and where several runs were made each of them is one unit, since what a run met (its place in memory, the day's
temperature) all its launches share. Student's t widens the interval for the small number of units. One unit says
nothing of the next, and has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, zip_longest
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, stdtr, stdtrit

from rls_bench.records.scatter import means

Launches = Sequence[Sequence[float]]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval about it, all in the unit of what was given (or a plain ratio).

    From 0 to infinity where nothing says how far the estimate may be off: one launch, or a clock that is too coarse.
    """

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval relative to the estimate: 0.01 is within 1 %; infinite where nothing is known."""
        return (self.high - self.low) / (2 * self.median)

    @property
    def is_known(self) -> bool:
        """Whether the interval says anything."""
        return self.high < math.inf


@dataclass(frozen=True)
class Estimate:
    """A mean log latency, the squared standard error of that and its degrees of freedom.

    ``blur`` is how far a coarse clock may have moved the mean, whatever the number of launches.
    """

    mean: float
    variance: float
    freedom: float
    blur: float = 0.0

    def interval(self, level: float = 0.95) -> Interval:
        """In the unit of the latency."""
        return _interval(self.mean, self.reach(level))

    def over(self, base: Estimate) -> Estimate:
        """``self / base``: above 1 is slower. Degrees of freedom after Welch, as two need not scatter alike."""
        total = self.variance + base.variance
        if not 0 < total < math.inf:
            return Estimate(self.mean - base.mean, total, 1.0, self.blur + base.blur)
        freedom = total**2 / (self.variance**2 / self.freedom + base.variance**2 / base.freedom)
        return Estimate(self.mean - base.mean, total, freedom, self.blur + base.blur)

    def reach(self, level: float) -> float:
        """Half the interval at ``level``, in logarithms; infinite where nothing is known."""
        if not 0 < level < 1:
            raise ValueError(f"level: wanted a share between 0 and 1; got {level}")
        if self.variance == math.inf:
            return math.inf
        return math.sqrt(self.variance) * float(stdtrit(self.freedom, (1 + level) / 2)) + self.blur

    def chance_above(self, bound: float = 0.0) -> float:
        """How likely a mean this far above ``bound`` (a logarithm) is where the truth is no higher: a one-sided p."""
        if self.variance == math.inf:
            return 1.0
        error = max(math.sqrt(self.variance), 1e-12)
        return float(stdtr(self.freedom, (bound + self.blur - self.mean) / error))


def log_medians(launches: Launches) -> list[float]:
    """The logarithm of each launch's median; empty launches don't count.

    Raises ValueError where there is no sample, or one that isn't positive and finite.
    """
    found = [_median(_ordered_logs(samples)) for samples in launches if len(samples)]
    if not found:
        raise ValueError("launches: wanted at least one sample; got none")
    return found


def averaged(labels: Sequence[Sequence[float]]) -> list[float]:
    """One log median a launch, where several labels ran the same code in it: they met the same neighbours."""
    if len(labels) == 1:
        return list(labels[0])
    return [fmean(value for value in met if value is not None) for met in zip_longest(*labels)]


def units(runs: Sequence[Sequence[float]]) -> list[float]:
    """What counts as one observation of the next: a run where there are two or more, else a launch."""
    return list(runs[0]) if len(runs) == 1 else [fmean(launches) for launches in runs]


def blur(launches: Launches) -> float:
    """Half the step of the clock, in logarithms, where it shows: samples that read the same, to the last digit.

    Infinite where all of them do, for then the step may be anything; 0 where no two do.
    """
    samples = [value for launch in launches for value in launch]
    distinct = sorted(set(samples))
    if len(distinct) == len(samples):
        return 0.0
    return min((math.log(above / below) for below, above in pairwise(distinct)), default=math.inf) / 2


def estimate(launches: Launches) -> Estimate:
    """Of one label of one run by itself, without neighbours to tell how far launches scatter.

    Raises ValueError as ``log_medians`` does.
    """
    medians = log_medians(launches)
    count, blurred = len(medians), blur(launches)
    centre = fmean(medians)
    if count == 1 or blurred == math.inf:
        return Estimate(centre, math.inf, 1.0)
    # Not the standard library's variance: its exact fractions take longer than all the rest.
    scatter = math.fsum((value - centre) ** 2 for value in medians) / (count - 1)
    return Estimate(centre, scatter / count, count - 1, blurred)


def estimates(
    cells: Mapping[Name, Sequence[float]],
    blurs: Mapping[Name, float] | None = None,
    groups: Mapping[Name, Hashable] | None = None,
) -> dict[Name, Estimate]:
    """Estimates of the units of ``cells``, each with the help of the others of its group (see scatter.py).

    ``groups`` says which cells scatter alike, all where it isn't given; ``blurs`` are as ``blur`` gives them.
    """
    if not cells:
        return {}
    found = means(list(cells.values()), None if groups is None else [groups[name] for name in cells])
    columns = zip(cells, found.mean.tolist(), found.variance.tolist(), found.freedom.tolist(), strict=True)
    blurs = blurs or {}
    return {
        name: Estimate(mean, math.inf, 1.0)
        if blurs.get(name) == math.inf
        else Estimate(mean, variance, freedom, blurs.get(name, 0.0))
        for name, mean, variance, freedom in columns
    }


def median_interval(launches: Launches, level: float = 0.95) -> Interval:
    """The geometric mean of the launches' medians, with its interval at ``level``; arguments as ``estimate``."""
    return estimate(launches).interval(level)


def ratio_interval(base: Launches, new: Launches, level: float = 0.95) -> Interval:
    """``new / base`` of the same estimates: above 1 is slower where samples are times."""
    return estimate(new).over(estimate(base)).interval(level)


def looked(level: float, looks: int) -> float:
    """The level of an interval that was looked at ``looks`` times, each time to stop if it was narrow.

    The first look spends half of what may go wrong, each later one an eighth of it, alike, as in Pocock, Group
    sequential methods, 1977: looks at the same launches and one more miss mostly together, so that ten of them miss
    about as often as one plain interval (benchmarks/verdicts.py draws it).
    """
    return 1 - (1 - level) / (2 if looks == 1 else 8)


def within_launch(samples: Sequence[float], level: float = 0.95) -> Interval:
    """How well the samples of one process tell that process's own median; it says nothing of another process.

    The ideal bootstrap, with infinitely many resamples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 5): no seed, and the same samples always give the same interval.
    """
    ordered = _ordered_logs(samples)
    weights = _median_weights(len(ordered))
    offsets = ordered - weights @ ordered
    own = Estimate(_median(ordered), float(weights @ (offsets * offsets)), max(len(ordered) - 1, 1))
    return own.interval(level)


def noise_floor(pairs: Sequence[tuple[Launches, Launches]], level: float = 0.95) -> float | None:
    """How far two labels that run the same code may differ, relative, in ``level`` of cases; None without a pair.

    One pair of launches for each problem: a label's and its twin's. What is averaged is the squared difference itself,
    since the true one is 0, over launches or, where that is more, over problems: two processes may differ for good.
    """
    differences = [_differences(log_medians(one), log_medians(twin)) for one, twin in pairs]
    if not differences:
        return None
    launches = fmean(len(found) for found in differences)
    every = [value for found in differences for value in found]
    by_launch = fmean(value**2 for value in every) / launches
    by_problem = fmean(fmean(found) ** 2 for found in differences)
    reach = math.sqrt(max(by_launch, by_problem)) * float(stdtrit(len(every), (1 + level) / 2))
    return math.expm1(reach)


def _differences(one: Sequence[float], twin: Sequence[float]) -> list[float]:
    """Launch by launch, as far as both have them."""
    return [first - second for first, second in zip(one, twin, strict=False)]


def _ordered_logs(samples: Sequence[float]) -> NDArray[np.float64]:
    values = np.array(samples, dtype=np.float64)
    values.sort()
    if not len(values) or not 0 < values[0] <= values[-1] < math.inf:
        shown = f"{values[0]:g} to {values[-1]:g}" if len(values) else "none"
        raise ValueError(f"samples: wanted positive finite numbers; got {shown}")
    return np.log(values)


def _median(ordered: NDArray[np.float64]) -> float:
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


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


def _interval(centre: float, reach: float) -> Interval:
    if reach == math.inf:
        return Interval(math.exp(centre), 0.0, math.inf)
    return Interval(math.exp(centre), math.exp(centre - reach), math.exp(centre + reach))
