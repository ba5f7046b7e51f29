"""One stopwatch for each question about latency on CUDA; torch's events time the device, the clock times the host.

Every class takes the ``torch.cuda`` module, or a fake of it, so that the order of what they do is tested without a GPU.
No GPU has run them yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from rls_bench.timing import clock
from rls_bench.timing.ahead import Ahead
from rls_bench.timing.stopwatch import Call, Timed


class WarmL2:
    """Device time of ``loops`` calls on the same inputs, queued back to back, after an untimed one."""

    least_ns = 2_000_000
    primes = False

    def __init__(self, cuda: Any, now_ns: clock.Clock = clock.now_ns) -> None:
        self._bursts = _Bursts(cuda, now_ns)

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        call = calls[first % len(calls)]
        return self._bursts.time(call, call, loops)


class ColdL2:
    """Device time of calls that each find L2 emptied and take the next inputs; only the calls are timed."""

    least_ns = 0
    primes = False

    def __init__(self, cuda: Any, flush: Callable[[], object], now_ns: clock.Clock = clock.now_ns) -> None:
        self._ahead = Ahead(cuda, now_ns)
        self._flush = flush

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        elapsed_ns, result = 0, None
        for turn in range(first, first + loops):
            timed = self._ahead.time(calls[turn % len(calls)], before=self._flush)
            elapsed_ns, result = elapsed_ns + timed.elapsed_ns, timed.result
        return Timed(elapsed_ns, elapsed_ns, result)


class Graph:
    """Device time of replaying one captured call: what is left without launch overhead, with L2 warm.

    Raises whatever torch raises where a call cannot be captured, and leaves torch as it was before.
    """

    least_ns = 2_000_000
    primes = False

    def __init__(self, cuda: Any, now_ns: clock.Clock = clock.now_ns) -> None:
        self._cuda = cuda
        self._bursts = _Bursts(cuda, now_ns)
        self._captured: dict[int, tuple[Any, Any]] = {}

    def time(self, calls: Sequence[Call], first: int, loops: int) -> Timed:
        index = first % len(calls)
        graph, result = self._captured.get(index) or self._capture(index, calls[index])
        timed = self._bursts.time(graph.replay, graph.replay, loops)
        return Timed(timed.elapsed_ns, timed.calls_ns, result)

    def _capture(self, index: int, call: Call) -> tuple[Any, Any]:
        cuda = self._cuda
        current = cuda.current_stream()
        # Capture wants the call to have run on a side stream before (torch.cuda.graph's own advice).
        side = cuda.Stream()
        side.wait_stream(current)
        with cuda.stream(side):
            call()
        current.wait_stream(side)
        graph, pool = cuda.CUDAGraph(), cuda.graph_pool_handle()
        try:
            with cuda.graph(graph, pool=pool):
                result = call()
        except BaseException as error:
            self._undo_capture(current, pool)
            # Ending a capture that failed raises anew, and the later error says less.
            raise error.__context__ or error from None
        self._captured[index] = graph, result
        return graph, result

    def _undo_capture(self, stream: Any, pool: Any) -> None:
        """What torch.cuda.graph leaves undone where its end raises: the stream, and where memory comes from."""
        self._cuda.set_stream(stream)
        # Otherwise the allocator goes on serving the dead capture. It refuses where the capture did end.
        with suppress(RuntimeError):
            self._cuda.memory._cuda_endAllocateToPool(self._cuda.current_device(), pool)


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


class _Bursts:
    """Calls back to back, in bursts that the device's queue holds: past some thousand launches the host must wait."""

    def __init__(self, cuda: Any, now_ns: clock.Clock) -> None:
        self._ahead = Ahead(cuda, now_ns)
        self._most = 1 << 20

    def time(self, call: Call, warm: Call, loops: int) -> Timed:
        """Device time of ``loops`` calls, each burst after an untimed ``warm``."""
        elapsed_ns, left, result = 0, loops, None
        while left:
            count = min(left, self._most)
            timed = self._ahead.time(partial(_repeat, call, count), before=warm)
            if not timed.was_ahead and count > 1:
                self._most = count // 2
                continue
            elapsed_ns, left, result = elapsed_ns + timed.elapsed_ns, left - count, timed.result
        return Timed(elapsed_ns, elapsed_ns, result)


def _repeat(call: Call, count: int) -> Any:
    result = None
    for _ in range(count):
        result = call()
    return result
