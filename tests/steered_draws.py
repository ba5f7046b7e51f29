"""Random inputs of steered attention for tests of kernels, in every layout."""

from __future__ import annotations

import torch

from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs

BIAS_SHAPES = {"k": (-1,), "bk": (0, -1), "bhk": (0, 1, -1)}
STRENGTH_SHAPES = {"scalar": (), "h": (1,), "bh": (0, 1), "bhq": (0, 1, 2)}


def draw(
    *,
    sizes: tuple[int, int, int, int, int] = (1, 1, 1, 40, 52),
    dims: tuple[int, int] = (16, 16),
    dtype: torch.dtype = torch.float32,
    bias: str = "k",
    strength: str = "scalar",
    size: float = 3.0,
    eps: float = 0.0,
    causal: bool = False,
    lengths: list[int] | None = None,
    stats: bool = False,
    seed: int = 0,
) -> Inputs:
    """Random inputs; ``sizes`` are batch, query heads, kv heads, Lq and Lk, ``size`` that of λ."""
    generator = torch.Generator().manual_seed(seed)
    batch, heads, kv_heads, query_length, key_length = sizes
    axes = {0: batch, 1: heads, 2: query_length, -1: key_length}

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    lam = torch.rand([axes[axis] for axis in STRENGTH_SHAPES[strength]], generator=generator) * 0.5 + 0.5
    return binding.bind(
        # Heads innermost but one, as a model lays them out: strides must be followed.
        normal(batch, query_length, heads, dims[0]).transpose(1, 2).to(dtype),
        normal(batch, key_length, kv_heads, dims[0]).transpose(1, 2).to(dtype),
        normal(batch, kv_heads, key_length, dims[1]).to(dtype),
        normal(*(axes[axis] for axis in BIAS_SHAPES[bias])),
        size * lam,
        eps=eps,
        is_causal=causal,
        key_lengths=None if lengths is None else torch.tensor(lengths),
        enable_gqa=True,
        return_stats=stats,
    )
