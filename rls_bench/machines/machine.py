"""What a machine is: hardware and the versions of what runs on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

# NVIDIA's names of its architectures, by compute capability (CUDA C++ Programming Guide, appendix of capabilities).
_GENERATIONS = {
    "sm_70": "Volta",
    "sm_75": "Turing",
    "sm_80": "Ampere",
    "sm_86": "Ampere",
    "sm_87": "Ampere",
    "sm_89": "Ada",
    "sm_90": "Hopper",
    "sm_100": "Blackwell",
    "sm_103": "Blackwell",
    "sm_120": "Blackwell",
    "sm_121": "Blackwell",
}

# Enforced where a machine is read from a file.
Count = Annotated[int, Meta(ge=0, le=2**62)]


@dataclass(frozen=True)
class Machine:
    """Hardware and versions; figures of two different machines are never compared in silence.

    ``fingerprint`` hashes the hardware alone, so that a new driver or torch is the same machine with other versions.
    Fields of a GPU are None where there is none; clocks are in MHz, the power limit in watts, memory in bytes.
    """

    cpu_model: str
    cpu_isa: tuple[str, ...]
    cpu_count: Count
    threads: Count
    memory_bytes: Count
    os: str
    python: str
    torch: str
    triton: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    gpu_name: str | None = None
    gpu_uuid: str | None = None
    gpu_arch: str | None = None
    gpu_count: Count = 0
    gpu_memory_bytes: Count | None = None
    driver: str | None = None
    sm_clock_mhz: Count | None = None
    memory_clock_mhz: Count | None = None
    power_limit_watts: Annotated[float, Meta(ge=0, le=1e6)] | None = None

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the hardware: CPU, its threads, and the GPU model."""
        hardware = (self.cpu_model, self.cpu_isa, self.cpu_count, self.threads, self.gpu_name, self.gpu_count)
        return hashlib.sha256(repr(hardware).encode()).hexdigest()[:12]

    @property
    def generation(self) -> str:
        """``Hopper``; an architecture without a name here by its number, and ``CPU`` where there is no GPU."""
        if self.gpu_name is None:
            return "CPU"
        return _GENERATIONS.get(self.gpu_arch or "", self.gpu_arch or "unknown")

    @property
    def title(self) -> str:
        """One line for tables and headings."""
        cpu = f"{self.cpu_model}, {self.threads} threads"
        return f"{self.gpu_name} ({cpu})" if self.gpu_name else cpu
