"""A device with a queue and a host of its own pace, in place of ``torch.cuda``: what the stopwatches are tested on.

Times are in nanoseconds. The host's clock advances as it launches, the device's as it works: a kernel starts once it
has been launched and the one before it has ended, and past ``queue`` pending launches the host waits.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import Any

CYCLES_PER_NS = 2


class FakeCuda:
    def __init__(self, launch_ns: int = 0, queue: int = 1000) -> None:
        self.launch_ns, self.queue = launch_ns, queue
        self.host_ns = self.device_ns = 0
        self.log: list[str] = []
        self.streams: list[Any] = [_Stream("default")]
        # Pools that the allocator serves a capture from.
        self.allocating: list[Any] = []
        self.memory = self
        self._ends: deque[int] = deque()
        self._capturing: list[tuple[str, int]] | None = None

    def now_ns(self) -> int:
        return self.host_ns

    def kernel(self, name: str, ns: int) -> Any:
        """A call that launches one kernel."""

        def call() -> str:
            if self._capturing is None:
                self.launch(ns, name)
            else:
                self._capturing.append((name, ns))
            return name

        return call

    def launch(self, ns: int, name: str) -> None:
        self.host_ns += self.launch_ns
        while self._ends and self._ends[0] <= self.host_ns:
            self._ends.popleft()
        if len(self._ends) >= self.queue:
            self.host_ns = self._ends.popleft()
        self.device_ns = max(self.device_ns, self.host_ns) + ns
        self._ends.append(self.device_ns)
        self.log.append(name)

    def waiting(self, name: str, ns: int) -> Any:
        """A call that waits for the device, which no capture allows."""

        def call() -> str:
            if self._capturing is not None:
                raise RuntimeError("operation not permitted when stream is capturing")
            self.kernel(name, ns)()
            self.host_ns = max(self.host_ns, self.device_ns)
            return name

        return call

    def _sleep(self, cycles: int) -> None:
        self.launch(cycles // CYCLES_PER_NS, "spin")

    def synchronize(self) -> None:
        self.host_ns = max(self.host_ns, self.device_ns)
        self.log.append("wait")

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        return _Event(self)

    def Stream(self) -> Any:  # noqa: N802
        return _Stream("side")

    def current_stream(self) -> Any:
        return self.streams[-1]

    def set_stream(self, stream: Any) -> None:
        self.streams[-1] = stream

    def current_device(self) -> int:
        return 0

    @contextmanager
    def stream(self, stream: Any) -> Any:
        self.streams.append(stream)
        yield
        self.streams.pop()

    def graph_pool_handle(self) -> Any:
        return object()

    def graph(self, graph: Any, pool: Any) -> Any:
        return _Capture(self, graph, pool)

    def CUDAGraph(self) -> Any:  # noqa: N802
        return _Graph(self)

    def _cuda_endAllocateToPool(self, device: int, pool: Any) -> None:  # noqa: N802
        if pool not in self.allocating:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.allocating.remove(pool)

    def empty_cache(self) -> None:
        if self.allocating:
            raise RuntimeError("captures underway")


class _Stream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: Any) -> None: ...


class _Event:
    """Happens when the device reaches it; costs the host nothing."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.at = cuda, 0

    def record(self) -> None:
        self.at = max(self.cuda.device_ns, self.cuda.host_ns)

    def query(self) -> bool:
        return self.cuda.host_ns >= self.at

    def synchronize(self) -> None:
        self.cuda.host_ns = max(self.cuda.host_ns, self.at)

    def elapsed_time(self, other: _Event) -> float:
        """Milliseconds, as torch gives them."""
        return (other.at - self.at) / 1e6


class _Capture:
    """torch.cuda.graph: where its end raises, it puts neither the stream nor the allocator back."""

    def __init__(self, cuda: FakeCuda, graph: _Graph, pool: Any) -> None:
        self.cuda, self.graph, self.pool = cuda, graph, pool

    def __enter__(self) -> None:
        self.cuda.streams[-1] = _Stream("capture")
        self.cuda.allocating.append(self.pool)
        self.cuda._capturing = []

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        launches, self.cuda._capturing = self.cuda._capturing, None
        if isinstance(error, RuntimeError):
            raise RuntimeError("operation failed due to a previous error during capture")
        self.cuda.allocating.remove(self.pool)
        self.cuda.streams[-1] = _Stream("default")
        self.graph.launches = launches or []


class _Graph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.launches = cuda, list[tuple[str, int]]()

    def replay(self) -> None:
        self.cuda.launch(sum(ns for _, ns in self.launches), "replay " + " ".join(name for name, _ in self.launches))
