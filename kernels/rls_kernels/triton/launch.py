"""Launches the forward kernels: picks one, its configuration and its grid, and allocates what it writes."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from rls_kernels.triton import configurations
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.floored import floored_kernel
from rls_kernels.triton.prefill import prefill_kernel


def architecture(device: torch.device) -> int:
    """``80`` for sm_80; the interpreter takes sm_80's configurations."""
    if device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor


def broadcast_strides(tensor: Tensor) -> tuple[int, ...]:
    """Strides of ``tensor`` with 0 for each axis of size 1, so that it broadcasts without being expanded."""
    return tuple(0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None,
    *,
    scale: float,
    eps: float,
    is_causal: bool,
    return_stats: bool,
    allow_tf32: bool = False,
    configuration: Configuration | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One launch of the prefill kernel, with or without the floor.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] of one dtype and any strides; bias float32
    [B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths int32 [B]; ``scale`` is positive.
    Returns the output [B, Hq, Lq, Dv] and, float32, the log-sum-exp [B, Hq, Lq] (steered where eps is 0, else
    plain), the logarithm of the floored normaliser [B, Hq, Lq] (empty where eps is 0) and the row statistics
    [5, B, Hq, Lq] (empty unless asked for).
    """
    batches, query_heads, query_length, head_dim = query.shape
    kv_heads, key_length, value_dim = value.shape[1:]
    if configuration is None:
        widest = max(head_dim, value_dim)
        configuration = configurations.prefill(architecture(query.device), widest, query.element_size())
    rows = (batches, query_heads, query_length)
    out = query.new_empty(*rows, value_dim)
    lse = torch.empty(rows, dtype=torch.float32, device=query.device)
    norm = torch.empty(rows if eps else 0, dtype=torch.float32, device=query.device)
    stats = torch.empty((5, *rows) if return_stats else 0, dtype=torch.float32, device=query.device)
    grid = (triton.cdiv(query_length, configuration.block_m) * batches * query_heads,)
    strides = (
        *query.stride(),
        *key.stride(),
        *value.stride(),
        *broadcast_strides(bias)[:2],
        bias.stride(2),
        *broadcast_strides(strength),
    )
    sizes = (batches, query_heads, query_heads // kv_heads, query_length, key_length)
    lengths = lse if key_lengths is None else key_lengths
    options = {
        "HEAD_DIM": head_dim,
        "VALUE_DIM": value_dim,
        "CAUSAL": is_causal,
        "HAS_LENGTHS": key_lengths is not None,
        "PER_QUERY": strength.shape[2] > 1,
        "STATS": return_stats,
        "PRECISION": "tf32" if allow_tf32 else "ieee",
        "PARTIALS": configuration.partials,
        "BLOCK_M": configuration.block_m,
        "BLOCK_N": configuration.block_n,
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK_DV": max(16, triton.next_power_of_2(value_dim)),
        "num_warps": configuration.num_warps,
        "num_stages": configuration.num_stages,
    }
    tensors = (query, key, value, bias, strength, lengths, out, lse)
    half = query.dtype != torch.float32
    if eps:
        bits = 15 if query.dtype == torch.float16 else 0
        floored_kernel[grid](*tensors, norm, stats, *strides, scale, eps, *sizes, WEIGHT_BITS=bits, **options)
    else:
        prefill_kernel[grid](*tensors, stats, *strides, scale, *sizes, STEERED=True, BIAS_FIRST=half, **options)
    return out, lse, norm, stats
