"""One stopwatch for each question about latency on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rls_bench.timing import clock
from rls_bench.timing.caches import flusher

Call = Callable[[], Any]
# Called with the index of the inputs that the next call gets, before it and outside its time.
Renew = Callable[[int], object]


@dataclass(frozen=True)
class Timed:
    """``elapsed_ns`` of the timed calls; ``calls_ns`` counts the untimed ones, too; the last call's ``result``.

    ``kept`` is the result of one of the timed calls, ``later`` calls before the last. Which one is settled by the
    clock's last digits when that call has returned, so that none can know beforehand whether it will be looked at.
    """

    elapsed_ns: int
    calls_ns: int
    result: Any
    kept: Any = None
    later: int = 0


class Stopwatch(Protocol):
    """Answers one question about latency.

    ``calls`` are the same backend prepared on distinct inputs, which samples take in turn. A sample lasts at least
    ``least_ns``, however fine the clock is. ``primes``: before a turn's first sample one untimed call on its inputs
    brings them into the caches, where warming up hasn't.
    """

    least_ns: int
    primes: bool

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed: ...


def _leave_alone(which: int) -> None:
    del which


class Warm:
    """``loops`` calls in the same memory, which is as warm in the caches as it can be; only the calls are timed.

    ``primes`` is False for inputs that no cache holds anyway. ``renew`` may change some of the inputs before each call.
    """

    # So long that an interrupt of some microseconds doesn't show.
    least_ns = 2_000_000

    def __init__(self, primes: bool = True, now_ns: clock.Clock = clock.now_ns, renew: Renew = _leave_alone) -> None:
        self.primes = primes
        self._now_ns = now_ns
        self._renew = renew

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        which = first % len(calls)
        now_ns, renew, call = self._now_ns, self._renew, calls[which]
        elapsed, result, kept, kept_at = 0, None, None, 0
        for turn in range(1, loops + 1):
            renew(which)
            start = now_ns()
            result = call()
            stop = now_ns()
            elapsed += stop - start
            if stop % turn == 0:
                kept, kept_at = result, turn
        return Timed(elapsed, elapsed, result, kept, loops - kept_at)


class Cold:
    """Caches emptied before each call, which takes the next inputs; only the calls are timed.

    ``renew`` may change some of the inputs before each call.
    """

    least_ns = 0
    primes = False

    def __init__(
        self,
        flush: Callable[[], object] | None = None,
        now_ns: clock.Clock = clock.now_ns,
        renew: Renew = _leave_alone,
    ) -> None:
        self._flush = flush or flusher("cpu")
        self._now_ns = now_ns
        self._renew = renew

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        now_ns, elapsed, result, kept, kept_at = self._now_ns, 0, None, None, 0
        for turn in range(1, loops + 1):
            which = (first + turn - 1) % len(calls)
            self._renew(which)
            self._flush()
            start = now_ns()
            result = calls[which]()
            stop = now_ns()
            elapsed += stop - start
            if stop % turn == 0:
                kept, kept_at = result, turn
        return Timed(elapsed, elapsed, result, kept, loops - kept_at)
