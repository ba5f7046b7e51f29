"""The CUDA stopwatches on a fake device: what is timed, what is flushed, what is waited for."""

from __future__ import annotations

import pytest
from fake_cuda import FakeCuda

from rls_bench.timing import cuda
from rls_bench.timing.ahead import Ahead


def worked(device: FakeCuda) -> list[str]:
    """What ran on the device, but for spins."""
    return [name for name in device.log if name != "spin"]


def test_warm_times_calls_after_an_untimed_one() -> None:
    device = FakeCuda()
    timed = cuda.WarmL2(device).time([device.kernel("a", 2_000)], first=0, loops=3)
    assert timed.elapsed_ns == 6_000
    assert timed.result == "a"
    assert worked(device) == ["a"] * 4


def test_cold_flushes_outside_the_timed_part() -> None:
    device = FakeCuda()
    calls = [device.kernel("a", 2_000), device.kernel("b", 3_000)]
    timed = cuda.ColdL2(device, device.kernel("flush", 50_000)).time(calls, first=1, loops=2)
    assert timed.elapsed_ns == 5_000
    assert worked(device) == ["flush", "b", "flush", "a"]


def test_a_graph_is_captured_once_and_replayed() -> None:
    device = FakeCuda()
    watch, calls = cuda.Graph(device), [device.kernel("a", 2_000)]
    assert watch.time(calls, first=0, loops=2).elapsed_ns == 4_000
    assert worked(device) == ["a", "replay a", "replay a", "replay a"]
    watch.time(calls, first=1, loops=1)
    assert device.log.count("a") == 1


def test_host_waits_for_an_idle_device_on_both_sides() -> None:
    device = FakeCuda(launch_ns=7)
    timed = cuda.Host(device, device.now_ns).time([device.kernel("a", 1)], first=0, loops=2)
    assert timed.elapsed_ns == 16
    assert device.log == ["wait", "a", "wait", "wait", "a", "wait"]


@pytest.mark.parametrize("question", ["warm", "cold", "graph"])
def test_the_time_that_launching_takes_is_no_device_time(question: str) -> None:
    # Twenty launches of 60 µs each on the host, and 1 µs each on the device.
    device = FakeCuda(launch_ns=60_000)
    kernel = device.kernel("a", 1_000)

    def call() -> None:
        for _ in range(20):
            kernel()

    watches = {
        "warm": cuda.WarmL2(device, device.now_ns),
        "cold": cuda.ColdL2(device, device.kernel("flush", 1_000), device.now_ns),
        "graph": cuda.Graph(device, device.now_ns),
    }
    assert watches[question].time([call], first=0, loops=1).elapsed_ns == 20_000


def test_a_spin_that_was_too_short_is_made_longer_and_then_stays() -> None:
    device = FakeCuda(launch_ns=1_000_000)
    ahead = Ahead(device, device.now_ns)
    timed = ahead.time(device.kernel("a", 1_000))
    assert timed.was_ahead
    assert timed.elapsed_ns == 1_000
    assert device.log.count("a") > 1
    device.log.clear()
    assert ahead.time(device.kernel("a", 1_000)).was_ahead
    assert device.log == ["spin", "a"]


def test_what_waits_for_the_device_is_said_to_be_overtaken_and_ends() -> None:
    device = FakeCuda(launch_ns=10)
    timed = Ahead(device, device.now_ns).time(device.waiting("a", 1_000))
    assert not timed.was_ahead
    assert timed.result == "a"


def test_more_launches_than_the_queue_holds_are_timed_in_bursts() -> None:
    device = FakeCuda(launch_ns=50_000, queue=64)
    watch = cuda.WarmL2(device, device.now_ns)
    assert watch.time([device.kernel("a", 1_000)], first=0, loops=500).elapsed_ns == 500_000


def test_a_capture_that_fails_leaves_stream_and_allocator_as_they_were() -> None:
    device = FakeCuda()
    watch = cuda.Graph(device)
    with pytest.raises(RuntimeError, match="operation not permitted when stream is capturing"):
        watch.time([device.waiting("a", 1_000)], first=0, loops=1)
    assert device.current_stream().name == "default"
    device.empty_cache()
    assert watch.time([device.kernel("b", 1_000)], first=0, loops=2).elapsed_ns == 2_000


def test_a_call_that_raises_in_a_capture_of_its_own_accord_is_told_as_it_was() -> None:
    device = FakeCuda()

    def call() -> None:
        if device._capturing is not None:
            raise ValueError("no such head")

    with pytest.raises(ValueError, match="no such head"):
        cuda.Graph(device).time([call], first=0, loops=1)
    assert device.current_stream().name == "default"
    device.empty_cache()
