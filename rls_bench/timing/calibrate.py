"""How many calls make one sample, and when warm-up is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

# A sample is at least this many steps of the clock, so that reading it adds less than 1e-4.
CLOCK_STEPS = 10_000
# Warm-up is over when a sample is within this share of the best one before it.
FLAT = 0.02
MOST_WARMUPS = 30


def loops_for(call_ns: float, resolution_ns: int, least_ns: int = 0) -> int:
    """Calls that make one sample of at least ``least_ns``, given what one call takes."""
    wanted = max(CLOCK_STEPS * resolution_ns, least_ns)
    return max(1, math.ceil(wanted / max(call_ns, 1.0)))


def is_flat(samples_ns: Sequence[float]) -> bool:
    """Whether the last of at least two samples is no faster than the best before it, but for 2 %."""
    return len(samples_ns) >= 2 and samples_ns[-1] >= min(samples_ns[:-1]) * (1 - FLAT)


def warm_up(
    sample: Callable[[int], int], loops_of: Callable[[float], int], patience_ns: int, most: int = MOST_WARMUPS
) -> tuple[int, list[float]]:
    """Find the loops of one sample and warm up until flat.

    ``sample(loops)`` takes one sample and returns its nanoseconds; ``loops_of(call_ns)`` says how many calls a sample
    should have. Returns that, and the warm-up samples in nanoseconds a call, which belong to no statistic. Ends after
    ``most`` samples or ``patience_ns`` at the latest.
    """
    loops, spent, taken = 1, 0, list[float]()
    while len(taken) < most and spent < patience_ns:
        elapsed = sample(loops)
        spent += elapsed
        taken.append(elapsed / loops)
        wanted = loops_of(min(taken))
        if wanted <= 2 * loops and is_flat(taken):
            break
        loops = max(loops, wanted)
    return max(loops, loops_of(min(taken))), taken
