"""What a machine is: hardware and the versions of what runs on it."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Instruction sets that change which kernel runs, as Linux spells them.
_ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


@dataclass(frozen=True)
class Machine:
    """Hardware and versions; figures of two different machines are never compared in silence.

    ``fingerprint`` hashes the hardware alone, so that a new driver or torch is the same machine with other versions.
    Fields of a GPU are None where there is none; clocks are in MHz, the power limit in watts, memory in bytes.
    """

    cpu_model: str
    cpu_isa: tuple[str, ...]
    cpu_count: int
    threads: int
    memory_bytes: int
    os: str
    python: str
    torch: str
    triton: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    gpu_name: str | None = None
    gpu_uuid: str | None = None
    gpu_arch: str | None = None
    gpu_count: int = 0
    gpu_memory_bytes: int | None = None
    driver: str | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_watts: float | None = None

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the hardware: CPU, its threads, and the GPU model."""
        hardware = (self.cpu_model, self.cpu_isa, self.cpu_count, self.threads, self.gpu_name, self.gpu_count)
        return hashlib.sha256(repr(hardware).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """One line for tables and headings."""
        cpu = f"{self.cpu_model}, {self.threads} threads"
        return f"{self.gpu_name} ({cpu})" if self.gpu_name else cpu


@cache
def current() -> Machine:
    """The machine that this process runs on; imports torch, and asks the driver only where torch has CUDA."""
    import torch

    return Machine(
        cpu_model=_cpu_model(),
        cpu_isa=_cpu_isa(),
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=f"{platform.system()} {platform.release()}",
        python=".".join(map(str, sys.version_info[:3])),
        torch=torch.__version__,
        triton=_installed("triton"),
        **(_gpu() if torch.cuda.is_available() else {}),  # type: ignore[arg-type]
    )


def _gpu() -> dict[str, object]:
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    cudnn = torch.backends.cudnn.version()
    return {
        "gpu_name": properties.name,
        "gpu_uuid": str(properties.uuid),
        "gpu_arch": f"sm_{properties.major}{properties.minor}",
        "gpu_count": torch.cuda.device_count(),
        "gpu_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": str(cudnn) if cudnn else None,
        **_driver(str(properties.uuid)),
    }


def _driver(uuid: str) -> dict[str, object]:
    """What only the driver's library knows; nothing where it is missing or refuses."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "sm_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power_limit_watts": pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        }
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _cpu_model() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpu_isa() -> tuple[str, ...]:
    flags = set(_cpuinfo().get("flags", "").split())
    return tuple(flag for flag in _ISA_FLAGS if flag in flags)
