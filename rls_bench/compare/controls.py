"""What moves all cells at once: a machine that drifts during a run, or is another one in the next.

A commit can slow one backend; it rarely slows all of them alike, and a machine does. The median cell is therefore the
control of every other one. Between two runs it cannot tell the machine from the code, so it is said and no more. Where
the machine is seen to drift while a run goes on, what all cells did is no evidence any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The median of fewer cells says little about the machine.
FEWEST_CELLS = 10
FEWEST_LAUNCHES = 3
# A movement of all cells counts from this many of its standard errors.
_BEYOND_DOUBT = 4.0
# How much of what all cells did together a straight line must explain: launches that merely differ drift nowhere.
_LEAST_EXPLAINED = 0.8
# Movements below this change no verdict that anybody asks for.
LEAST_SHIFT = 0.005
# The median scatters so much more than the mean (of normal values).
_MEDIAN_ERROR = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class Control:
    """What the cells of one machine and question did together, in logarithms.

    ``shift`` is the median cell's, new over base, 0 where it is within its own scatter; ``drifts`` the slopes of base
    and of new, a launch, 0 where there is none to be seen.
    """

    shift: float = 0.0
    drifts: tuple[float, float] = (0.0, 0.0)

    @property
    def is_adrift(self) -> bool:
        """Whether the machine moved during a run."""
        return any(self.drifts)


def control(base: Sequence[Sequence[float]], new: Sequence[Sequence[float]], log_ratios: Sequence[float]) -> Control:
    """What all cells did; ``base`` and ``new`` hold each cell's log medians, one a launch, in order."""
    # One that is no number would leave the others without a control.
    known = np.asarray([ratio for ratio in log_ratios if math.isfinite(ratio)])
    if len(known) < FEWEST_CELLS:
        return Control()
    shift = float(np.median(known))
    if abs(shift) < max(LEAST_SHIFT, _BEYOND_DOUBT * _error(known)):
        shift = 0.0
    return Control(shift, (drift(base), drift(new)))


def drift(cells: Sequence[Sequence[float]]) -> float:
    """By how much a launch is slower than the one before, in all cells alike; 0 where that can't be seen.

    The launch's number is the regressor. Cells with other numbers of launches than most take no part.
    """
    cells = [launches for launches in cells if math.isfinite(math.fsum(launches))]
    counts = [len(launches) for launches in cells]
    usual = max(set(counts), key=counts.count, default=0)
    values = np.array([launches for launches in cells if len(launches) == usual])
    if usual < FEWEST_LAUNCHES or len(values) < FEWEST_CELLS:
        return 0.0
    values -= values.mean(axis=1, keepdims=True)
    steps = np.arange(usual) - (usual - 1) / 2
    slopes = values @ steps / (steps @ steps)
    slope = float(np.median(slopes))
    together = np.median(values, axis=0)
    unexplained = float(((together - slope * steps) ** 2).sum() / max((together**2).sum(), 1e-24))
    is_seen = abs(slope) >= max(_BEYOND_DOUBT * _error(slopes), LEAST_SHIFT / usual)
    return slope if is_seen and 1 - unexplained >= _LEAST_EXPLAINED else 0.0


def _error(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Standard error of the median; from the middle half, since some cells may truly differ."""
    quarter, three_quarters = np.quantile(values, (0.25, 0.75))
    return float(_MEDIAN_ERROR * (three_quarters - quarter) / 1.349 / math.sqrt(len(values)))
