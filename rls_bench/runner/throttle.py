"""Was the GPU's clock held down while a sample was taken: a process of its own watches it through NVML.

Samples below 0.96 of a locked clock, or 0.75 of the default one, don't count.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from rls_bench.errors import DriverError
from rls_bench.machines import nvidia

LEAST_OF_LOCKED = 0.96
LEAST_OF_DEFAULT = 0.75
_PERIOD_SECONDS = 0.02
_MOST_READINGS = 100_000
_RECENT_NS = 200_000_000
# A GPU with nothing to do lowers its clocks; such a reading says nothing about a sample.
_IDLE = "idle"


class Reading(msgspec.Struct, frozen=True, tag=True):
    """The SM clock at a moment of the monotonic clock, and the least that it should be; ``reasons`` hold it down."""

    at_ns: int
    clock_mhz: float
    least_mhz: float
    reasons: tuple[str, ...] = ()


class Blind(msgspec.Struct, frozen=True, tag=True):
    """Why there is no reading, or none any more."""

    reason: str


class ClockWatch:
    """Collects the readings of the watching process; where there are none nothing is held, and ``complaint`` says so.

    ``gpu`` is the UUID of the GPU in use, as torch or NVML spells it; empty for the first that CUDA shows.
    """

    def __init__(
        self, gpu: str = "", command: Sequence[str] = (sys.executable, "-m", "rls_bench.runner.throttle")
    ) -> None:
        self._process = subprocess.Popen([*command, gpu], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._decoder: msgspec.json.Decoder[Reading | Blind] = msgspec.json.Decoder(Reading | Blind)
        self._readings: deque[Reading] = deque(maxlen=_MOST_READINGS)
        self._heard, self._blind = False, ""
        self._torn = b""

    def held_down(self, began_ns: int, ended_ns: int) -> str:
        """Why a sample taken between two moments doesn't count, or an empty string."""
        self._drain()
        during = [reading for reading in self._readings if began_ns <= reading.at_ns <= ended_ns]
        # A sample shorter than the period is judged by the last reading before its end, unless that is of another time.
        recent = [reading for reading in self._readings if ended_ns - _RECENT_NS <= reading.at_ns <= ended_ns]
        during = during or recent[-1:]
        slow = [reading for reading in during if not reading.clock_mhz >= reading.least_mhz]
        if not slow:
            return ""
        worst = min(slow, key=lambda reading: reading.clock_mhz)
        why = f" ({', '.join(worst.reasons)})" if worst.reasons else ""
        return f"the SM clock fell to {worst.clock_mhz:.0f} MHz{why}; wanted at least {worst.least_mhz:.0f}"

    def complaint(self) -> str:
        """That clocks were not watched, and why; an empty string while readings come."""
        self._drain()
        if self._blind or not self._heard:
            why = self._blind or "no reading came"
            return f"the GPU's clock was not watched, so samples taken under throttling count: {why}"
        if self._process.poll() is not None:
            return f"the GPU's clock was not watched to the end: the watcher ended with {self._process.returncode}"
        return ""

    def stop(self) -> None:
        """End the watching process."""
        self._process.kill()
        self._process.communicate()

    def _drain(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], 0)[0] and (chunk := os.read(descriptor, 1 << 16)):
            *lines, self._torn = (self._torn + chunk).split(b"\n")
            for found in map(self._decoder.decode, lines):
                self._heard = True
                if isinstance(found, Blind):
                    self._blind = found.reason
                elif _IDLE not in found.reasons:
                    self._readings.append(found)


def watch(gpu: nvidia.Gpu) -> Reading | Blind:
    """One reading, or why there is none."""
    clock, reasons = gpu.sm_clock_mhz(), gpu.event_reasons() or ()
    locked = gpu.application_sm_clock_mhz() if "application clocks" in reasons else None
    default = gpu.default_sm_clock_mhz() or gpu.max_sm_clock_mhz()
    if clock is None or (locked is None and default is None):
        return Blind(gpu.shared or "the driver doesn't tell this GPU's clocks")
    least = locked * LEAST_OF_LOCKED if locked is not None else (default or 0) * LEAST_OF_DEFAULT
    return Reading(time.perf_counter_ns(), clock, least, tuple(reasons))


def main(gpu: str = "") -> None:
    """Write readings of the GPU with that UUID until the coordinator is gone; at the first that fails, why."""
    # The coordinator is gone, and with it who would read a reason.
    with suppress(BrokenPipeError):
        try:
            with nvidia.gpu(gpu or 0) as opened:
                # The coordinator never writes: its end of the pipe becomes readable when it dies.
                while not select.select([sys.stdin], [], [], _PERIOD_SECONDS)[0]:
                    found = watch(opened)
                    _tell(found)
                    if isinstance(found, Blind):
                        return
        except DriverError as error:
            _tell(Blind(str(error)))


def _tell(found: Reading | Blind) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
