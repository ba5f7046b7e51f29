"""What a probe is: the one interface behind ``run --probe NAME`` and ``rls-bench profile``."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from rls_bench.backends.interface import Call, Support
from rls_bench.problems.problem import Problem

# Figures by name, units in the name (``dram_read_bytes``, ``call_ns``); None where the figure is missing.
Measures = dict[str, float | str | None]


def finite(measures: Measures) -> Measures:
    """``measures`` with None for each figure that is not finite: JSON has no word for it, and no counter counts it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in measures.items()
    }


@runtime_checkable
class Probe(Protocol):
    """One way of looking at a call; stands outside the timed samples and never changes them.

    ``available`` is cheap and speaks of this machine. ``measure`` runs ``call`` as often as it needs; a probe that
    must start a process of its own prepares ``backend`` on ``problem`` again there. It returns figures a call,
    with a figure that could not be read as None, never 0; it raises ProbeUnavailable where it can see nothing at all.
    """

    name: str
    # One line for `rls-bench list`.
    summary: str

    def available(self) -> Support: ...

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures: ...
