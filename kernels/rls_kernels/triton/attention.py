"""Steered attention by our Triton kernels, as one function."""

from __future__ import annotations

from torch import Tensor

from rls_kernels.triton.launch import forward


def steered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None = None,
    *,
    scale: float,
    eps: float = 0.0,
    is_causal: bool = False,
    return_stats: bool = False,
    allow_tf32: bool = False,
) -> tuple[Tensor, Tensor]:
    """``softmax(log(softmax(Z) + eps) + λ b) v`` with ``Z = scale · q kᵀ``, over visible keys alone.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D] and value [B, Hkv, Lk, Dv] share dtype and device, in any strides; Hq is
    a multiple of Hkv. bias is float32 [B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths
    int32 [B]. Returns the output [B, Hq, Lq, Dv] in query's dtype, and float32 [5, B, Hq, Lq]: lse, lse_steered,
    entropy, entropy_steered and KL, empty unless asked for. ``scale`` is positive. Arguments are not checked here.
    """
    out, _, _, stats = forward(
        query,
        key,
        value,
        bias,
        strength,
        key_lengths,
        scale=scale,
        eps=eps,
        is_causal=is_causal,
        return_stats=return_stats,
        allow_tf32=allow_tf32,
    )
    return out, stats
