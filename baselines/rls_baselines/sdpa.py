"""torch's scaled_dot_product_attention with λ b as an additive mask, pinned to one of its kernels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def sdpa_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logit_bias: Tensor | None,
    visible: Tensor | None,
    *,
    scale: float,
    is_causal: bool,
    kernel: SDPBackend,
) -> Tensor:
    """``softmax(Z + λ b) v`` by the SDPA kernel named; torch raises where that kernel cannot run.

    query [B, Hq, Lq, D], key and value [B, Hkv, Lk, ·]; ``logit_bias`` [B or 1, Hq or 1, Lq or 1, Lk] in float32 or
    query's dtype; ``visible`` bool, broadcast alike. ``is_causal`` is the kernel's own mask, square only.
    """
    mask = additive_mask(logit_bias, visible)
    grouped = query.shape[1] != key.shape[1]
    with sdpa_kernel([kernel]):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=grouped
        )


def cpu_flash_with_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logit_bias: Tensor | None,
    visible: Tensor | None,
    *,
    scale: float,
    is_causal: bool,
) -> Tensor:
    """``softmax(Z + λ b) v`` by torch's CPU flash kernel; all head dims equal.

    The operator is called directly: the public function refuses a mask beside ``is_causal``, which this kernel applies
    together. ``is_causal`` is top-left aligned here, so it serves square problems only.
    """
    output, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=additive_mask(logit_bias, visible), scale=scale
    )
    return output


def additive_mask(logit_bias: Tensor | None, visible: Tensor | None) -> Tensor | None:
    """One additive mask from both, 4-D with a last stride of 1, of the smallest shape that holds them."""
    if visible is None:
        return logit_bias
    if logit_bias is None:
        return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -math.inf)
    return torch.where(visible, logit_bias, -math.inf)
