"""Inner loops, warm-up, stopwatches and clocks, on a fake clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rls_bench.timing import caches, calibrate, clock, stopwatch


class FakeClock:
    """Time that passes only when something takes it."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def take(self, ns: int) -> int:
        self.ns += ns
        return ns


def test_a_sample_lasts_ten_thousand_steps_of_the_clock() -> None:
    assert calibrate.loops_for(call_ns=100.0, resolution_ns=50) == 5000
    assert calibrate.loops_for(call_ns=1e9, resolution_ns=50) == 1
    assert calibrate.loops_for(call_ns=100.0, resolution_ns=1, least_ns=2_000_000) == 20_000


def test_warm_up_goes_on_while_calls_get_faster() -> None:
    times: Iterator[int] = iter([900, 500, 300, 200, 200, 200, 200])
    loops, taken = calibrate.warm_up(lambda loops: next(times) * loops, lambda call_ns: 1, patience_ns=10**9)
    assert loops == 1
    assert taken == [900, 500, 300, 200, 200]


def test_warm_up_ends_with_patience() -> None:
    falling = iter(range(1000, 0, -50))
    _, taken = calibrate.warm_up(lambda loops: next(falling), lambda call_ns: 1, patience_ns=2500)
    assert taken == [1000, 950, 900]


def test_warm_up_finds_the_loops() -> None:
    loops, _ = calibrate.warm_up(lambda loops: 100 * loops, lambda call_ns: round(10_000 / call_ns), 10**9)
    assert loops == 100


def test_warm_times_calls_on_the_same_inputs() -> None:
    fake = FakeClock()
    timed = stopwatch.Warm(now_ns=fake).time([lambda: fake.take(7), lambda: fake.take(5)], first=1, loops=3)
    assert (timed.elapsed_ns, timed.calls_ns, timed.result) == (15, 15, 5)


def test_cold_flushes_before_each_call_and_takes_the_inputs_in_turn() -> None:
    fake, order = FakeClock(), list[str]()

    def call(name: str, ns: int) -> stopwatch.Call:
        return lambda: order.append(name) or fake.take(ns)

    flush = lambda: order.append("flush") or fake.take(1000)  # noqa: E731
    timed = stopwatch.Cold(flush, fake).time([call("a", 3), call("b", 4)], first=0, loops=3)
    assert timed.elapsed_ns == 3 + 4 + 3
    assert order == ["flush", "a", "flush", "b", "flush", "a"]


def test_the_last_level_cache_is_read_off_sysfs(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("3", "Unified", "32768K"), ("2", "Unified", "1M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert caches.last_level_bytes(sysfs=tmp_path) == 32 << 20
    assert caches.last_level_bytes(sysfs=tmp_path / "none") == 64 << 20


def test_the_clock_has_a_step_and_its_replacement_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.resolution_ns() >= 1
    assert clock.replaced() == ""
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)
    assert clock.replaced() == "time.perf_counter_ns"
