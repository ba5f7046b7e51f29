"""Reads off the machine that this process runs on."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rls_bench.errors import DriverError
from rls_bench.machines import nvidia
from rls_bench.machines.machine import Machine

# Instruction sets that change which kernel runs, as Linux spells them.
_ISA_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")
# NVIDIA's driver, AMD's, and the one of a Windows host.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@cache
def current() -> Machine:
    """The machine that this process runs on; imports torch, and asks the driver only where torch has CUDA."""
    import torch

    return Machine(
        cpu_model=_cpu_model(),
        cpu_isa=cpu_isa(),
        cpu_count=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=f"{platform.system()} {platform.release()}",
        python=".".join(map(str, sys.version_info[:3])),
        torch=str(torch.__version__),
        triton=_installed("triton"),
        **(_gpu() if torch.cuda.is_available() else {}),  # type: ignore[arg-type]
    )


def device() -> str:
    """``cuda`` where torch can compute there, else ``cpu``; loads torch only where a device file hints at a GPU."""
    if sys.platform == "linux" and not any(map(os.path.exists, _GPU_FILES)):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_names() -> tuple[str, ...]:
    """The processor's name, then those of all GPUs that the driver shows; imports no torch."""
    return _cpu_model(), *nvidia.names()


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
    try:
        with nvidia.gpu(uuid) as gpu:
            return {
                "driver": gpu.driver(),
                "sm_clock_mhz": gpu.max_sm_clock_mhz(),
                "memory_clock_mhz": gpu.max_memory_clock_mhz(),
                "power_limit_watts": gpu.power_limit_watts(),
            }
    except DriverError:
        return {}


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


def cpu_isa() -> tuple[str, ...]:
    """What this CPU has of the instruction sets that change which kernel runs, as Linux spells them."""
    flags = set(_cpuinfo().get("flags", "").split())
    return tuple(flag for flag in _ISA_FLAGS if flag in flags)
