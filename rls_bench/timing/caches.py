"""The size of the last cache before memory, and how to empty it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the machine doesn't tell: more than most last-level caches.
_UNKNOWN_BYTES = 64 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_bytes(device: str = "cpu", sysfs: Path = _SYSFS) -> int:
    """Bytes of the CPU's last-level cache as the kernel tells it, or of the GPU's L2."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)
    levels = {}
    for index in sysfs.glob("index*"):
        try:
            size, level = (index / "size").read_text().strip(), int((index / "level").read_text())
        except (OSError, ValueError):
            continue
        if (index / "type").read_text().strip() != "Instruction":
            levels[level] = int(size[:-1]) * _UNITS[size[-1]] if size[-1] in _UNITS else int(size)
    return levels[max(levels)] if levels else _UNKNOWN_BYTES


def flusher(device: str = "cpu") -> Callable[[], object]:
    """A function that pushes everything out of the last-level cache by writing twice its size."""
    import torch

    buffer = torch.zeros(2 * last_level_bytes(device), dtype=torch.uint8, device=device)
    return lambda: buffer.add_(1)
