"""Block sizes, warps and stages of each kernel for each architecture: the one table."""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = (80, 86, 89, 90, 100, 120)


@dataclass(frozen=True)
class Configuration:
    """How one kernel is cut up: queries and keys a block, warps, pipeline stages, and partial sums kept of a row."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    partials: int = 8


def prefill(arch: int, head_dim: int, element_bytes: int) -> Configuration:
    """The configuration of the prefill kernels; ``arch`` is 80 for sm_80, ``head_dim`` the larger of D and Dv."""
    # tcgen05 gives each thread a whole row; one partial sum is all there is to keep.
    partials = 1 if arch == 100 else 8
    if element_bytes == 4:
        # Full float32 runs on the ordinary pipes, and its tiles are twice as wide.
        return Configuration(64 if head_dim <= 64 else 32, 32 if head_dim <= 128 else 16, 4, 2, partials)
    warps = 4 if arch == 100 else 8
    if head_dim <= 128:
        return Configuration(128, 64, warps, 2, partials)
    return Configuration(64, 32, 4, 2, partials)
