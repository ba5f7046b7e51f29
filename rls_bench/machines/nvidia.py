"""What NVIDIA's driver says about one GPU, through NVML. Importing this loads no library and touches no GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rls_bench.errors import DriverError
from rls_bench.machines.visible import selected

# NVML's clock event reasons, by bit; the second part of the pair says whether it takes speed away from a busy GPU.
_EVENT_REASONS = {
    0x001: ("idle", False),
    0x002: ("application clocks", False),
    0x004: ("power cap", True),
    0x008: ("hardware slowdown", True),
    0x010: ("sync boost", False),
    0x020: ("software thermal", True),
    0x040: ("hardware thermal", True),
    0x080: ("power brake", True),
    0x100: ("display clocks", False),
}

# By NVML's error code.
_MENDS = {
    4: "run as a user who may open /dev/nvidia*",
    9: "load the kernel module (modprobe nvidia), or start the container with --gpus all",
    15: "reset the GPU or reboot the machine",
    18: "reload the kernel module or reboot: the driver was updated under it",
}


# What a GPU or a driver that lacks a figure answers: not supported, no such function, no data, another version of the
# arguments, and (driver 580 for application clocks) deprecated.
_LACKING = (3, 13, 21, 25, 26)
_NOT_FOUND = (2, 6)
_VGPU = 2


@contextmanager
def gpu(device: int | str = 0) -> Iterator[Gpu]:
    """Open NVML and one GPU: the one that CUDA counts as number ``device``, or a UUID as torch or NVML spells it
    (``GPU-…``, ``MIG-…`` or bare).

    Raises DriverError, with the mend where one is known, where NVML or the GPU cannot be opened.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise DriverError("no NVIDIA driver here: libnvidia-ml.so.1 was not found") from None
    except pynvml.NVMLError as error:
        raise _driver_error("NVML", error) from error
    try:
        if isinstance(device, int):
            device = selected(device, os.environ, _names())
        yield Gpu(*_whole(_handle(device)))
    finally:
        pynvml.nvmlShutdown()


def names() -> list[str]:
    """Names of all GPUs, in NVML's order, whatever CUDA is allowed to see; empty without a driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return _names()
    finally:
        pynvml.nvmlShutdown()


def _names() -> list[str]:
    """Names of all GPUs, in NVML's order; empty where one of them doesn't answer."""
    try:
        count = _call("nvmlDeviceGetCount") or 0
        return [str(_call("nvmlDeviceGetName", _call("nvmlDeviceGetHandleByIndex", index))) for index in range(count)]
    except DriverError:
        return []


def _handle(device: int | str) -> Any:
    """NVML's handle of a GPU, by its own index or by UUID, whole or the start of it; a MIG instance has one, too."""
    import pynvml

    try:
        if isinstance(device, int):
            return pynvml.nvmlDeviceGetHandleByIndex(device)
        # Torch leaves the kind out.
        kinds = ("",) if device.startswith(("GPU-", "MIG-")) else ("GPU-", "MIG-")
        for kind in kinds:
            try:
                return pynvml.nvmlDeviceGetHandleByUUID(kind + device)
            except pynvml.NVMLError as error:
                if error.value not in _NOT_FOUND:
                    raise
    except pynvml.NVMLError as error:
        raise _driver_error(f"GPU {device}", error) from error
    return _by_start(device)


def _by_start(start: str) -> Any:
    """The one GPU whose UUID starts so, as CUDA_VISIBLE_DEVICES allows; an old MIG name starts with its GPU's UUID."""
    wanted = start.removeprefix("MIG-").partition("/")[0] if start.startswith("MIG-GPU-") else start
    uuids = {}
    for index in range(_call("nvmlDeviceGetCount") or 0):
        handle = _call("nvmlDeviceGetHandleByIndex", index)
        uuids[str(_call("nvmlDeviceGetUUID", handle))] = handle
        for instance in range(_call("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            mig = _call("nvmlDeviceGetMigDeviceHandleByIndex", handle, instance, lacking=(*_LACKING, *_NOT_FOUND))
            if mig is not None:
                uuids[str(_call("nvmlDeviceGetUUID", mig))] = mig
    found = [handle for uuid, handle in uuids.items() if uuid.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(uuids) or "none"
    raise DriverError(
        f"GPU {start}: {'more than one' if found else 'none'} of those that the driver shows here ({there}); "
        "in a container, the one that CUDA computes on may be hidden from NVML"
    )


def _whole(handle: Any) -> tuple[Any, str]:
    """The GPU to ask about clocks and power, and what it is shared with; NVML tells neither of a MIG instance."""
    parent, shared = handle, ""
    if bool(_call("nvmlDeviceIsMigDeviceHandle", handle)):
        parent = _call("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
        uuid = _call("nvmlDeviceGetUUID", parent)
        shared = f"a MIG instance of {uuid}: clocks, power and energy are those of the whole GPU"
    elif (mode := _call("nvmlDeviceGetMigMode", handle)) and mode[0]:
        shared = "MIG is on: clocks, power and energy are those of the whole GPU, not of one instance"
    elif _call("nvmlDeviceGetVirtualizationMode", handle) == _VGPU:
        shared = "a vGPU: its clocks, power and energy are known to its host alone"
    return parent, shared


class Gpu:
    """One GPU while NVML is open; ``shared`` is a line where its figures are not those of one user's GPU alone.

    Every method returns None where the GPU or its driver lacks that figure, and raises DriverError where the driver
    fails to answer (a lost GPU, an unknown error).
    """

    def __init__(self, handle: Any, shared: str = "") -> None:
        self._handle = handle
        self.shared = shared

    def name(self) -> str | None:
        return self._ask("nvmlDeviceGetName")

    def uuid(self) -> str | None:
        return self._ask("nvmlDeviceGetUUID")

    def compute_capability(self) -> tuple[int, int] | None:
        """(9, 0) for an H100."""
        return self._ask("nvmlDeviceGetCudaComputeCapability")

    def driver(self) -> str | None:
        """Version of the driver."""
        return _call("nvmlSystemGetDriverVersion")

    def sm_clock_mhz(self) -> int | None:
        """SM clock of this moment."""
        return self._ask("nvmlDeviceGetClockInfo", _clock("SM"))

    def memory_clock_mhz(self) -> int | None:
        """Memory clock of this moment."""
        return self._ask("nvmlDeviceGetClockInfo", _clock("MEM"))

    def max_sm_clock_mhz(self) -> int | None:
        return self._ask("nvmlDeviceGetMaxClockInfo", _clock("SM"))

    def application_sm_clock_mhz(self) -> int | None:
        """The clock that somebody locked the GPU to."""
        return self._ask("nvmlDeviceGetApplicationsClock", _clock("SM"))

    def default_sm_clock_mhz(self) -> int | None:
        """The clock that the GPU holds under load unless told otherwise."""
        return self._ask("nvmlDeviceGetDefaultApplicationsClock", _clock("SM"))

    def max_memory_clock_mhz(self) -> int | None:
        return self._ask("nvmlDeviceGetMaxClockInfo", _clock("MEM"))

    def power_watts(self) -> float | None:
        """Draw of this moment; NVML averages it over up to a second on some GPUs."""
        return _thousandth(self._ask("nvmlDeviceGetPowerUsage"))

    def power_limit_watts(self) -> float | None:
        return _thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit"))

    def energy_joules(self) -> float | None:
        """Energy since the driver was loaded; the counter moves about every 10 ms (Volta and later)."""
        return _thousandth(self._ask("nvmlDeviceGetTotalEnergyConsumption"))

    def temperature_celsius(self) -> int | None:
        import pynvml

        return self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU)

    def event_reasons(self) -> tuple[str, ...] | None:
        """Why the clocks are what they are, in plain words; empty where nothing holds them down."""
        mask = self._event_mask()
        if mask is None:
            return None
        known = tuple(word for bit, (word, _) in _EVENT_REASONS.items() if mask & bit)
        return known + ((f"unknown {mask & ~0x1FF:#x}",) if mask & ~0x1FF else ())

    def is_throttled(self) -> bool | None:
        """Whether power, heat or the hardware itself holds the clocks down at this moment."""
        mask = self._event_mask()
        return None if mask is None else any(mask & bit for bit, (_, slows) in _EVENT_REASONS.items() if slows)

    def _event_mask(self) -> int | None:
        mask = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        # Drivers before 535 know the same call by its old name only.
        return self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") if mask is None else mask

    def _ask(self, function: str, *arguments: int) -> Any:
        return _call(function, self._handle, *arguments)


def _call(function: str, *arguments: Any, lacking: tuple[int, ...] = _LACKING) -> Any:
    """NVML's answer; None where GPU, driver or nvidia-ml-py lack the function."""
    import pynvml

    known: Callable[..., Any] | None = getattr(pynvml, function, None)
    try:
        return None if known is None else known(*arguments)
    except pynvml.NVMLError as error:
        if error.value in lacking:
            return None
        raise _driver_error(function, error) from error


def _driver_error(what: str, error: Any) -> DriverError:
    mend = _MENDS.get(error.value)
    return DriverError(f"{what}: {error}" + (f"; {mend}" if mend else ""))


def _clock(domain: str) -> int:
    import pynvml

    return int(getattr(pynvml, f"NVML_CLOCK_{domain}"))


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
