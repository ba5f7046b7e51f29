"""The CUDA stopwatches on a fake device: what is timed, what is flushed, what is waited for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from rls_bench.timing import cuda


class FakeCuda:
    """A device whose queue runs at once; times are in milliseconds, as torch gives them."""

    def __init__(self) -> None:
        self.ms = 0.0
        self.log: list[str] = []

    def kernel(self, name: str, ms: float) -> Any:
        def call() -> str:
            self.log.append(name)
            self.ms += ms
            return name

        return call

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        return _Event(self)

    def synchronize(self) -> None:
        self.log.append("wait")

    def Stream(self) -> Any:  # noqa: N802
        return _Stream()

    def current_stream(self) -> Any:
        return _Stream()

    @contextmanager
    def stream(self, stream: Any) -> Any:
        yield

    @contextmanager
    def graph(self, graph: Any) -> Any:
        start = len(self.log), self.ms
        yield
        graph.names, self.log[start[0] :] = self.log[start[0] :], []
        graph.ms, self.ms = self.ms - start[1], start[1]

    def CUDAGraph(self) -> Any:  # noqa: N802
        return _Graph(self)


class _Event:
    def __init__(self, device: FakeCuda) -> None:
        self.device, self.at = device, 0.0

    def record(self) -> None:
        self.at = self.device.ms

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: _Event) -> float:
        return other.at - self.at


class _Stream:
    def wait_stream(self, other: Any) -> None: ...


class _Graph:
    def __init__(self, device: FakeCuda) -> None:
        self.device, self.names, self.ms = device, list[str](), 0.0

    def replay(self) -> None:
        self.device.log += [f"replay {name}" for name in self.names]
        self.device.ms += self.ms


def test_warm_times_calls_after_an_untimed_one() -> None:
    device = FakeCuda()
    timed = cuda.WarmL2(device).time([device.kernel("a", 2.0)], first=0, loops=3)
    assert timed.elapsed_ns == 6_000_000
    assert device.log == ["a"] * 4


def test_cold_flushes_outside_the_timed_part() -> None:
    device = FakeCuda()
    calls = [device.kernel("a", 2.0), device.kernel("b", 3.0)]
    timed = cuda.ColdL2(device, device.kernel("flush", 50.0)).time(calls, first=1, loops=2)
    assert timed.elapsed_ns == 5_000_000
    assert device.log == ["flush", "b", "flush", "a"]


def test_a_graph_is_captured_once_and_replayed() -> None:
    device = FakeCuda()
    watch, calls = cuda.Graph(device), [device.kernel("a", 2.0)]
    assert watch.time(calls, first=0, loops=2).elapsed_ns == 4_000_000
    assert device.log == ["a", "replay a", "replay a", "replay a"]
    watch.time(calls, first=1, loops=1)
    assert device.log.count("a") == 1


def test_host_waits_for_an_idle_device_on_both_sides() -> None:
    device = FakeCuda()
    ticks = iter([0, 7, 10, 19])
    timed = cuda.Host(device, lambda: next(ticks)).time([device.kernel("a", 1.0)], first=0, loops=2)
    assert timed.elapsed_ns == 16
    assert device.log == ["wait", "a", "wait", "wait", "a", "wait"]
