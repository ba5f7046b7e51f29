"""What steering costs on this machine: a steered call against plain attention, taken in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from rls_bench.backends import registry
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problems.binding import bind

_WARM_UPS = 3


@dataclass(frozen=True)
class Overhead:
    """Medians in milliseconds; ``added_ms`` is the median of steered − unsteered over rounds, with the ends of its 95 %
    bootstrap interval; ``backend`` is what ran the steered call."""

    backend: str
    shape: str
    rounds: int
    unsteered_ms: float
    steered_ms: float
    added_ms: float
    added_low_ms: float
    added_high_ms: float

    @property
    def words(self) -> str:
        """What steering adds; where the interval holds 0, that it can't be told."""
        ends = f"95 % interval {self.added_low_ms:.2f} to {self.added_high_ms:.2f} ms"
        if self.added_low_ms <= 0 <= self.added_high_ms:
            return f"what steering adds can't be told from nothing ({ends}, which holds 0)"
        verb = "adds" if self.added_ms > 0 else "takes off"
        return f"steering {verb} {abs(self.added_ms):.2f} ms ({ends})"


def measure(backend_name: str, heads: int, length: int, *, head_dim: int = 64, rounds: int = 21) -> Overhead:
    """Time ``backend_name`` against ``unsteered`` on random float32 CPU tensors [1, heads, length, head_dim].

    ``rounds`` is 2 or more, since one difference has no interval. Raises BackendUnsupported or BackendUnavailable where
    the backend can't do that, or its time would mean nothing.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(
        3, 1, heads, length, head_dim, generator=generator, dtype=torch.float32, device="cpu"
    )
    bias = torch.rand(length, generator=generator, dtype=torch.float32, device="cpu")
    inputs = bind(query, key, value, bias, 0.25)
    backend = registry.get(backend_name)
    for answer in (backend.available(), backend.measurable()):
        if not answer:
            raise BackendUnavailable(f"backend {backend_name!r}: {answer.reason}")
    if not (support := backend.supports(inputs.problem)):
        raise BackendUnsupported(f"backend {backend_name!r} cannot do {inputs.problem.title}: {support.reason}")
    calls = (registry.get("unsteered").prepare(inputs), backend.prepare(inputs))
    elapsed_ms: tuple[list[float], list[float]] = ([], [])
    for round_ in range(_WARM_UPS + rounds):
        # The pair swaps its order each round, so that neither always runs on the other's caches.
        for which in (0, 1) if round_ % 2 else (1, 0):
            start = time.perf_counter_ns()
            calls[which]()
            elapsed = (time.perf_counter_ns() - start) / 1e6
            if round_ >= _WARM_UPS:
                elapsed_ms[which].append(elapsed)
    unsteered, steered = np.array(elapsed_ms)
    added = steered - unsteered
    interval = stats.bootstrap((added,), np.median, method="percentile", rng=0).confidence_interval
    return Overhead(
        backend_name,
        inputs.problem.title,
        rounds,
        float(np.median(unsteered)),
        float(np.median(steered)),
        float(np.median(added)),
        float(interval.low),
        float(interval.high),
    )
