"""A GPU clock that is held down spoils the samples taken meanwhile, and says why."""

from __future__ import annotations

import sys
import time

from rls_bench.runner import throttle

FAKE = """
import sys, time
for at, clock in ((10, 1900), (20, 1000), (30, 1900)):
    print('{"at_ns": %d, "clock_mhz": %d, "least_mhz": 1500, "reasons": ["power cap"]}' % (at, clock), flush=True)
sys.stdin.read()
"""


class FakeGpu:
    def __init__(self, clock: int, locked: int | None = None) -> None:
        self.clock, self.locked = clock, locked

    def sm_clock_mhz(self) -> int | None:
        return self.clock

    def event_reasons(self) -> tuple[str, ...]:
        return ("application clocks",) if self.locked else ()

    def application_sm_clock_mhz(self) -> int | None:
        return self.locked

    def default_sm_clock_mhz(self) -> int | None:
        return 2000

    def max_sm_clock_mhz(self) -> int | None:
        return 2500


def test_the_least_clock_hangs_on_whether_it_is_locked() -> None:
    default, locked = throttle.watch(FakeGpu(1800)), throttle.watch(FakeGpu(1000, 1000))  # type: ignore[arg-type]
    assert default is not None
    assert locked is not None
    assert default.least_mhz == 1500
    assert locked.least_mhz == 960


def test_samples_taken_under_a_slow_clock_are_named() -> None:
    watch = throttle.ClockWatch([sys.executable, "-c", FAKE])
    try:
        deadline = time.monotonic() + 20
        while not watch.held_down(15, 25) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watch.held_down(15, 25) == "the SM clock fell to 1000 MHz (power cap); wanted at least 1500"
        assert watch.held_down(5, 12) == ""
        # Shorter than the period: the reading before it counts.
        assert "1000 MHz" in watch.held_down(21, 22)
    finally:
        watch.stop()


def test_without_a_driver_nothing_is_held_down() -> None:
    watch = throttle.ClockWatch([sys.executable, "-c", ""])
    try:
        assert watch.held_down(0, 10**18) == ""
    finally:
        watch.stop()
