"""About how long a call takes, before anything was measured: what it computes, what it moves, and being called at all.

A roofline (Williams et al. 2009) with round figures of a device. Only ratios between problems of one device are used:
how much of the time is one shape's, and how many calls of one problem stand for those of another like it.
"""

from __future__ import annotations

from typing import NamedTuple

from rls_bench.problems.problem import Problem


class Rates(NamedTuple):
    """Seconds before a kernel does anything, FLOP/s, and bytes/s."""

    call_seconds: float
    flops: float
    bytes: float


# Two CPU cores; a GPU of a data centre. Order of magnitude, no machine's own.
RATES = {"cpu": Rates(20e-6, 1e11, 1e10), "cuda": Rates(10e-6, 3e14, 2e12)}


def seconds(problem: Problem) -> float:
    """A rough time of one call of ``problem``; with gradients, backward moves 2.5 times as much as forward."""
    rates = RATES.get(problem.device, RATES["cuda"])
    moved = (problem.input_bytes + problem.output_bytes) * (3.5 if problem.requires_grad else 1.0)
    return rates.call_seconds + max(problem.flops / rates.flops, moved / rates.bytes)
