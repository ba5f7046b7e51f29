"""What a machine is: hardware and the versions of what runs on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


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
