"""One stopwatch for each question about latency on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rls_bench.timing import clock
from rls_bench.timing.caches import flusher

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timed:
    """``elapsed_ns`` of the timed calls; ``calls_ns`` counts the untimed ones, too; the last call's ``result``."""

    elapsed_ns: int
    calls_ns: int
    result: Any


class Stopwatch(Protocol):
    """Answers one question about latency.

    ``calls`` are the same backend prepared on distinct inputs, which samples take in turn. A sample lasts at least
    ``least_ns``, however fine the clock is. ``primes``: before a turn's first sample one untimed call on its inputs
    brings them into the caches, where warming up hasn't.
    """

    least_ns: int
    primes: bool

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed: ...


class Warm:
    """``loops`` calls on the same inputs, which are as warm in the caches as they can be.

    ``primes`` is False for inputs that no cache holds anyway.
    """

    # So long that an interrupt of some microseconds doesn't show.
    least_ns = 2_000_000

    def __init__(self, primes: bool = True, now_ns: clock.Clock = clock.now_ns) -> None:
        self.primes = primes
        self._now_ns = now_ns

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        now_ns, call, result = self._now_ns, calls[first % len(calls)], None
        start = now_ns()
        for _ in range(loops):
            result = call()
        elapsed = now_ns() - start
        return Timed(elapsed, elapsed, result)


class Cold:
    """Caches emptied before each call, which takes the next inputs; only the calls are timed."""

    least_ns = 0
    primes = False

    def __init__(self, flush: Callable[[], object] | None = None, now_ns: clock.Clock = clock.now_ns) -> None:
        self._flush = flush or flusher("cpu")
        self._now_ns = now_ns

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        now_ns, elapsed, result = self._now_ns, 0, None
        for turn in range(first, first + loops):
            call = calls[turn % len(calls)]
            self._flush()
            start = now_ns()
            result = call()
            elapsed += now_ns() - start
        return Timed(elapsed, elapsed, result)
