"""What the driver sees while a call runs over and over: clocks, power, temperature and joules a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from typing import TypeVar

from rls_bench.backends.interface import YES, Call, Support, no
from rls_bench.errors import DriverError, ProbeUnavailable
from rls_bench.machines import nvidia
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem

Value = TypeVar("Value")

# The energy counter moves about every 10 ms, so that a window of a second resolves 1 %.
_WINDOW_SECONDS = 1.0
_BATCH_SECONDS = 0.05


class NvmlProbe:
    """Repeats the call for at least a second and reads NVML in between, while the GPU still has work queued."""

    name = "nvml"
    summary = "GPU name, driver, clocks, power, temperature, throttling and joules a call"

    def available(self) -> Support:
        try:
            with nvidia.gpu():
                return YES
        except DriverError as error:
            return no(str(error))

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        if not problem.device.startswith("cuda"):
            raise ProbeUnavailable("the call runs on the CPU, and NVML sees only GPUs")
        import torch

        try:
            with opened(problem.device) as gpu:
                return watch(gpu, call, torch.cuda.synchronize)
        except DriverError as error:
            raise ProbeUnavailable(str(error)) from error


PROBE = NvmlProbe()


def opened(device: str) -> AbstractContextManager[nvidia.Gpu]:
    """The GPU that torch calls ``device``; raises DriverError as ``nvidia.gpu`` does.

    NVML counts every GPU of the machine and torch only those that it was shown, in an order of its own: their UUIDs
    are the same.
    """
    import torch

    if torch.cuda.is_available():
        return nvidia.gpu(str(torch.cuda.get_device_properties(torch.device(device)).uuid))
    return nvidia.gpu(torch.device(device).index or 0)


def watch(gpu: nvidia.Gpu, call: Call, synchronize: Callable[[], None], seconds: float = _WINDOW_SECONDS) -> Measures:
    """Repeat ``call`` for ``seconds`` and read ``gpu`` meanwhile.

    Clocks and power are medians over the window, the temperature its highest, the event reasons their union. A
    figure that the driver fails to give is None, and ``reason`` says why the first one failed; ``shared`` says where
    the figures are not those of this GPU's user alone.
    """
    failures: list[str] = []

    def read(reader: Callable[[], Value | None]) -> Value | None:
        try:
            return reader()
        except DriverError as error:
            failures.append(str(error))
            return None

    batch = _calls_in(_BATCH_SECONDS, call, synchronize)
    clocks: list[int | None] = []
    powers: list[float | None] = []
    temperatures: list[int | None] = []
    reasons: list[tuple[str, ...] | None] = []
    calls = 0
    start_joules, start = read(gpu.energy_joules), time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(batch):
            call()
        calls += batch
        # Read before the wait: an idle GPU drops its clocks at once.
        clocks.append(read(gpu.sm_clock_mhz))
        powers.append(read(gpu.power_watts))
        temperatures.append(read(gpu.temperature_celsius))
        reasons.append(read(gpu.event_reasons))
        synchronize()
    end_joules = read(gpu.energy_joules)

    joules = None if start_joules is None or end_joules is None else (end_joules - start_joules) / calls
    measures: Measures = {
        "gpu_name": read(gpu.name),
        "gpu_uuid": read(gpu.uuid),
        "driver": read(gpu.driver),
        "sm_clock_mhz": _of(median, clocks),
        "max_sm_clock_mhz": read(gpu.max_sm_clock_mhz),
        "memory_clock_mhz": read(gpu.memory_clock_mhz),
        "power_watts": _of(median, powers),
        "power_limit_watts": read(gpu.power_limit_watts),
        "temperature_celsius": _of(max, temperatures),
        "event_reasons": _of(_union, reasons),
        "joules_per_call": joules,
        "window_seconds": elapsed,
        "calls": calls,
    }
    if gpu.shared:
        measures["shared"] = gpu.shared
    if failures:
        measures["reason"] = failures[0]
    return measures


def _calls_in(seconds: float, call: Call, synchronize: Callable[[], None]) -> int:
    """How many calls fill ``seconds``, at least one; also warms up."""
    call()
    synchronize()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        call()
        synchronize()
        calls += 1
    return calls


def _of(reduce: Callable[[list[Value]], float | str], values: list[Value | None]) -> float | str | None:
    present = [value for value in values if value is not None]
    return reduce(present) if present else None


def _union(reasons: list[tuple[str, ...]]) -> str:
    words = dict.fromkeys(word for moment in reasons for word in moment)
    return ", ".join(words) or "none"
