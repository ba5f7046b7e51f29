"""A driver for Triton that records what would be launched and runs nothing: an H100 as far as the launcher can tell."""

from __future__ import annotations

from typing import Any

import torch
from triton.backends.compiler import GPUTarget

_SHARED_BYTES = 232_448


class _Utils:
    """What loading a binary asks of the driver."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        self.loaded.append(name)
        return 0, len(self.loaded), 32, 0, 1024

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": _SHARED_BYTES, "multiprocessor_count": 132}


class Standin:
    """Set it by ``triton.runtime.driver.set_active``; ``launches`` are grid and arguments by kernel, in order."""

    def __init__(self, arch: int = 90) -> None:
        self._target = GPUTarget("cuda", arch, 32)
        self.utils = _Utils()
        self.launches: list[tuple[str, tuple[int, int, int], tuple[Any, ...]]] = []
        # Turned off where a launch is timed.
        self.is_recording = True
        standin = self

        class Launcher:
            """Takes the place of the C function that hands arguments to CUDA."""

            def __init__(self, source: Any, metadata: Any) -> None:
                self.name = metadata.name

            def __call__(self, x: int, y: int, z: int, stream: int, function: int, *given: Any) -> None:
                # Metadata of the kernel and the launch, and two hooks, come first.
                if standin.is_recording:
                    standin.launches.append((self.name, (x, y, z), given[4:]))

        self.launcher_cls = Launcher

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")
