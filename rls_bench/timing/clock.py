"""The clock that samples are taken with, and a check that nobody put another in its place."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]

# Bound when this module loads, which a worker does before it imports any backend.
now_ns: Clock = time.perf_counter_ns
_ORIGINALS = {
    name: getattr(time, name)
    for name in ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "time", "time_ns")
}


def resolution_ns(clock: Clock = now_ns) -> int:
    """The smallest step that ``clock`` is seen to make, at least 1 ns; what one reading costs is part of it."""
    steps = []
    for _ in range(100):
        start = clock()
        while (stop := clock()) == start:
            pass
        steps.append(stop - start)
    return max(1, min(steps))


def replaced() -> str:
    """Names of the timers that something in this process put another function in place of, or an empty string."""
    changed = [f"time.{name}" for name, original in _ORIGINALS.items() if getattr(time, name) is not original]
    if now_ns is not _ORIGINALS["perf_counter_ns"]:
        changed.append("rls_bench.timing.clock.now_ns")
    return ", ".join(changed)
