"""What NVIDIA's driver says about one GPU, through NVML. Importing this loads no library and touches no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rls_bench.errors import DriverError

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


@contextmanager
def gpu(device: int | str = 0) -> Iterator[Gpu]:
    """Open NVML and one GPU: an index, or a UUID as torch or NVML spells it (``GPU-…`` or bare).

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
        try:
            if isinstance(device, int):
                handle = pynvml.nvmlDeviceGetHandleByIndex(device)
            else:
                handle = pynvml.nvmlDeviceGetHandleByUUID(device if device.startswith("GPU-") else f"GPU-{device}")
        except pynvml.NVMLError as error:
            raise _driver_error(f"GPU {device}", error) from error
        yield Gpu(handle)
    finally:
        pynvml.nvmlShutdown()


class Gpu:
    """One GPU while NVML is open.

    Every method returns None where the GPU or its driver lacks that figure, and raises DriverError where the driver
    fails to answer (a lost GPU, an unknown error).
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def name(self) -> str | None:
        return self._ask("nvmlDeviceGetName")

    def uuid(self) -> str | None:
        return self._ask("nvmlDeviceGetUUID")

    def compute_capability(self) -> tuple[int, int] | None:
        """(9, 0) for an H100."""
        return self._ask("nvmlDeviceGetCudaComputeCapability")

    def driver(self) -> str | None:
        """Version of the driver."""
        import pynvml

        return _answer("driver version", pynvml.nvmlSystemGetDriverVersion)

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
        import pynvml

        return _answer(function, getattr(pynvml, function), self._handle, *arguments)


def _answer(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    import pynvml

    try:
        return function(*arguments)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NoData):
        return None
    except pynvml.NVMLError as error:
        raise _driver_error(what, error) from error


def _driver_error(what: str, error: Any) -> DriverError:
    mend = _MENDS.get(error.value)
    return DriverError(f"{what}: {error}" + (f"; {mend}" if mend else ""))


def _clock(domain: str) -> int:
    import pynvml

    return int(getattr(pynvml, f"NVML_CLOCK_{domain}"))


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
