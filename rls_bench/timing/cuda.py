"""One stopwatch for each question about latency on CUDA; torch's events time the device, the clock times the host.

Every class takes the ``torch.cuda`` module, or a fake of it, so that the order of what they do is tested without a GPU.
No GPU has run them yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rls_bench.timing import clock
from rls_bench.timing.stopwatch import Call, Timed


class WarmL2:
    """Device time of ``loops`` calls on the same inputs, queued back to back, after an untimed one."""

    least_ns = 2_000_000
    primes = False

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        call, result = calls[first % len(calls)], None
        call()
        start, stop = _events(self._cuda)
        start.record()
        for _ in range(loops):
            result = call()
        stop.record()
        elapsed_ns = _between(start, stop)
        return Timed(elapsed_ns, elapsed_ns, result)


class ColdL2:
    """Device time of calls that each find L2 emptied and take the next inputs; only the calls are timed."""

    least_ns = 0
    primes = False

    def __init__(self, cuda: Any, flush: Callable[[], object]) -> None:
        self._cuda = cuda
        self._flush = flush

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        pairs, result = [], None
        for turn in range(first, first + loops):
            start, stop = _events(self._cuda)
            self._flush()
            start.record()
            result = calls[turn % len(calls)]()
            stop.record()
            pairs.append((start, stop))
        elapsed_ns = sum(_between(start, stop) for start, stop in pairs)
        return Timed(elapsed_ns, elapsed_ns, result)


class Graph:
    """Device time of replaying one captured call: what is left without launch overhead, with L2 warm.

    Raises whatever torch raises where a call cannot be captured.
    """

    least_ns = 2_000_000
    primes = False

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._captured: dict[int, tuple[Any, Any]] = {}

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        index = first % len(calls)
        graph, result = self._captured.get(index) or self._capture(index, calls[index])
        graph.replay()
        start, stop = _events(self._cuda)
        start.record()
        for _ in range(loops):
            graph.replay()
        stop.record()
        elapsed_ns = _between(start, stop)
        return Timed(elapsed_ns, elapsed_ns, result)

    def _capture(self, index: int, call: Call) -> tuple[Any, Any]:
        # Capture wants the call to have run on a side stream before (torch.cuda.graph's own advice).
        side = self._cuda.Stream()
        side.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(side):
            call()
        self._cuda.current_stream().wait_stream(side)
        graph = self._cuda.CUDAGraph()
        with self._cuda.graph(graph):
            result = call()
        self._captured[index] = graph, result
        return graph, result


class Host:
    """Time that the host waits for one call, from an idle device to an idle device, launch overhead included."""

    least_ns = 2_000_000
    primes = False

    def __init__(self, cuda: Any, now_ns: clock.Clock = clock.now_ns) -> None:
        self._cuda = cuda
        self._now_ns = now_ns

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        elapsed_ns, result = 0, None
        for turn in range(first, first + loops):
            self._cuda.synchronize()
            start = self._now_ns()
            result = calls[turn % len(calls)]()
            self._cuda.synchronize()
            elapsed_ns += self._now_ns() - start
        return Timed(elapsed_ns, elapsed_ns, result)


def _events(cuda: Any) -> tuple[Any, Any]:
    return cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)


def _between(start: Any, stop: Any) -> int:
    """Nanoseconds between two events, once the second has happened."""
    stop.synchronize()
    return round(start.elapsed_time(stop) * 1e6)
