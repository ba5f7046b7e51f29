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

import msgspec

from rls_bench.errors import DriverError
from rls_bench.machines import nvidia

LEAST_OF_LOCKED = 0.96
LEAST_OF_DEFAULT = 0.75
_PERIOD_SECONDS = 0.02
_MOST_READINGS = 100_000


class Reading(msgspec.Struct, frozen=True):
    """The SM clock at a moment of the monotonic clock, and the least that it should be; ``reasons`` hold it down."""

    at_ns: int
    clock_mhz: float
    least_mhz: float
    reasons: tuple[str, ...] = ()


class ClockWatch:
    """Collects the readings of the watching process; where NVML doesn't answer there are none, and nothing is held."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "rls_bench.runner.throttle")) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._decoder = msgspec.json.Decoder(Reading)
        self._readings: deque[Reading] = deque(maxlen=_MOST_READINGS)
        self._torn = b""

    def held_down(self, began_ns: int, ended_ns: int) -> str:
        """Why a sample taken between two moments doesn't count, or an empty string."""
        self._drain()
        during = [reading for reading in self._readings if began_ns <= reading.at_ns <= ended_ns]
        # A sample shorter than the period is judged by the last reading before its end.
        during = during or [reading for reading in self._readings if reading.at_ns <= ended_ns][-1:]
        slow = [reading for reading in during if reading.clock_mhz < reading.least_mhz]
        if not slow:
            return ""
        worst = min(slow, key=lambda reading: reading.clock_mhz)
        why = f" ({', '.join(worst.reasons)})" if worst.reasons else ""
        return f"the SM clock fell to {worst.clock_mhz:.0f} MHz{why}; wanted at least {worst.least_mhz:.0f}"

    def stop(self) -> None:
        """End the watching process."""
        self._process.kill()
        self._process.communicate()

    def _drain(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while select.select([descriptor], [], [], 0)[0] and (chunk := os.read(descriptor, 1 << 16)):
            *lines, self._torn = (self._torn + chunk).split(b"\n")
            self._readings.extend(self._decoder.decode(line) for line in lines)


def watch(gpu: nvidia.Gpu) -> Reading | None:
    """One reading; None where the GPU doesn't tell its clocks."""
    clock, reasons = gpu.sm_clock_mhz(), gpu.event_reasons() or ()
    locked = gpu.application_sm_clock_mhz() if "application clocks" in reasons else None
    default = gpu.default_sm_clock_mhz() or gpu.max_sm_clock_mhz()
    if clock is None or (locked is None and default is None):
        return None
    least = locked * LEAST_OF_LOCKED if locked is not None else (default or 0) * LEAST_OF_DEFAULT
    return Reading(time.perf_counter_ns(), clock, least, tuple(reasons))


def main() -> None:
    """Write readings until the coordinator is gone."""
    try:
        with nvidia.gpu() as gpu:
            # The coordinator never writes: its end of the pipe becomes readable when it dies.
            while not select.select([sys.stdin], [], [], _PERIOD_SECONDS)[0]:
                if (reading := watch(gpu)) is not None:
                    sys.stdout.buffer.write(msgspec.json.encode(reading) + b"\n")
                    sys.stdout.buffer.flush()
    except (DriverError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
