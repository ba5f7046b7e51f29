"""A GPU clock that is held down spoils the samples taken meanwhile, and says why."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from rls_bench.runner import throttle

FAKE = """
import sys, time
for at, clock in ((10, 1900), (20, 1000), (30, 1900)):
    start = '{"type": "Reading", "at_ns": %d, "clock_mhz": %d, ' % (at, clock)
    print(start + '"least_mhz": 1500, "reasons": ["power cap"]}', flush=True)
sys.stdin.read()
"""


class FakeGpu:
    shared = ""

    def __init__(self, clock: int | None, locked: int | None = None, reasons: tuple[str, ...] = ()) -> None:
        self.clock, self.locked, self.reasons = clock, locked, reasons

    def sm_clock_mhz(self) -> int | None:
        return self.clock

    def event_reasons(self) -> tuple[str, ...]:
        return ("application clocks",) if self.locked else self.reasons

    def application_sm_clock_mhz(self) -> int | None:
        return self.locked

    def default_sm_clock_mhz(self) -> int | None:
        return 2000

    def max_sm_clock_mhz(self) -> int | None:
        return 2500


@contextmanager
def following(code: str) -> Iterator[throttle.ClockWatch]:
    """A watch whose process runs ``code``."""
    watch = throttle.ClockWatch(command=[sys.executable, "-c", code])
    try:
        yield watch
    finally:
        watch.stop()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_the_least_clock_hangs_on_whether_it_is_locked() -> None:
    default, locked = throttle.watch(FakeGpu(1800)), throttle.watch(FakeGpu(1000, 1000))  # type: ignore[arg-type]
    assert isinstance(default, throttle.Reading)
    assert isinstance(locked, throttle.Reading)
    assert default.least_mhz == 1500
    assert locked.least_mhz == 960


def test_samples_taken_under_a_slow_clock_are_named() -> None:
    with following(FAKE) as watch:
        until(lambda: watch.held_down(15, 25))
        assert watch.held_down(15, 25) == "the SM clock fell to 1000 MHz (power cap); wanted at least 1500"
        assert watch.held_down(5, 12) == ""
        # Shorter than the period: the reading before it counts, unless it is of another time.
        assert "1000 MHz" in watch.held_down(21, 22)
        assert watch.held_down(10**18, 10**18 + 1) == ""
        assert watch.complaint() == ""


def test_an_idle_clock_is_no_throttling() -> None:
    readings = [throttle.Reading(10, 345, 1485, ("idle",)), throttle.Reading(20, 1000, 1485, ("power cap",))]
    lines = b"".join(msgspec.json.encode(reading) + b"\n" for reading in readings)
    code = f"import sys; sys.stdout.buffer.write({lines!r}); sys.stdout.flush(); sys.stdin.read()"
    with following(code) as watch:
        until(lambda: watch.held_down(15, 25))
        assert watch.held_down(5, 12) == ""
        assert "1000 MHz" in watch.held_down(15, 25)


def test_without_a_driver_nothing_is_held_down_and_that_is_said() -> None:
    with following("") as watch:
        until(lambda: watch._process.poll() is not None)
        assert watch.held_down(0, 10**18) == ""
        assert "the GPU's clock was not watched" in watch.complaint()


def test_why_there_are_no_readings_is_said() -> None:
    line = msgspec.json.encode(throttle.Blind("GPU 0: GPU is lost")) + b"\n"
    with following(f"import sys; sys.stdout.buffer.write({line!r})") as watch:
        until(lambda: watch._process.poll() is not None)
        assert watch.complaint().endswith("samples taken under throttling count: GPU 0: GPU is lost")


def test_a_gpu_that_tells_no_clock_says_so() -> None:
    found = throttle.watch(FakeGpu(None))  # type: ignore[arg-type]
    assert found == throttle.Blind("the driver doesn't tell this GPU's clocks")
