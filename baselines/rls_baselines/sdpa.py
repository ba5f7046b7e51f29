"""torch's attention kernels, each called by its own operator, and λ b as the additive mask that they take.

``torch.nn.attention.sdpa_kernel`` picks a kernel by switches of the whole process: another thread's calls see them, and
two contexts that close in the wrong order leave them as no one set them. The operators skip the public function's
checks, so what these kernels assume of strides and widths is made so here.

Everywhere: query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] of one dtype, Hq a multiple of Hkv; the
result is ``softmax(scale q kᵀ + mask) v``, [B, Hq, Lq, Dv]. ``mask`` is additive and 4-D, its axes of 1 broadcast.
Torch raises where the kernel cannot run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Torch pads to whole multiples of this: head dims for its CUDA flash kernel, rows of the mask for the efficient one.
_ALIGNMENT = 8


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool
) -> Tensor:
    """By the flash kernel of query's device; D = Dv, and ``is_causal`` is top-left aligned.

    On a CPU a mask, float32 or of query's dtype, may stand beside ``is_causal``; CUDA's kernel takes none.
    """
    query, key, value = dense(query), dense(key), dense(value)
    if query.device.type == "cpu":
        return flash_on_cpu(
            query, key, value, 0.0, is_causal, attn_mask=None if mask is None else dense(mask), scale=scale
        )[0]
    if mask is not None:
        raise ValueError(f"mask: wanted None, since CUDA's flash kernel takes none; got shape {list(mask.shape)}")
    width = query.shape[-1]
    query, key, value = (pad_columns(tensor, -width % _ALIGNMENT) for tensor in (query, key, value))
    return _flash_on_cuda(query, key, value, 0.0, is_causal, False, scale=scale)[0][..., :width]


def math_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool
) -> Tensor:
    """By the composite kernel, which materialises the scores; either a mask or ``is_causal``, top-left aligned."""
    grouped = query.shape[1] != key.shape[1]
    return _math(query, key, value, mask, 0.0, is_causal, None, scale=scale, enable_gqa=grouped)[0]


def efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool = False
) -> Tensor:
    """By the memory-efficient CUDA kernel; ``mask`` in query's dtype, or ``is_causal``, top-left aligned."""
    if mask is not None:
        keys = key.shape[2]
        mask = pad_columns(dense(mask), -keys % _ALIGNMENT)[..., :keys].expand(*query.shape[:3], keys)
    query, key, value = dense(query), dense(key), dense(value)
    return _efficient(query, key, value, mask, _needs_grad(query, key, value), 0.0, is_causal, scale=scale)[0]


def cudnn_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, is_causal: bool = False
) -> Tensor:
    """By cuDNN's kernel; a mask or ``is_causal``, top-left aligned."""
    query, key, value, mask = dense(query), dense(key), dense(value), None if mask is None else dense(mask)
    return _cudnn(query, key, value, mask, _needs_grad(query, key, value), 0.0, is_causal, False, scale=scale)[0]


def dense(tensor: Tensor) -> Tensor:
    """``tensor`` itself where its last axis is dense, which the kernels take for granted, else a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def pad_columns(tensor: Tensor, columns: int) -> Tensor:
    """``tensor`` with ``columns`` zero columns behind its last axis; itself for none, which torch would copy."""
    return F.pad(tensor, (0, columns)) if columns else tensor


def additive_mask(logit_bias: Tensor | None, visible: Tensor | None) -> Tensor | None:
    """One additive mask from both, float32 and 4-D, of the smallest shape that holds them; None where both are absent.

    ``logit_bias`` = λ b [B or 1, Hq or 1, Lq or 1, Lk]; ``visible`` bool, broadcast alike; None where every key is.
    """
    if visible is None:
        return logit_bias
    if logit_bias is None:
        return torch.zeros(visible.shape, dtype=torch.float32, device=visible.device).masked_fill(~visible, -torch.inf)
    return torch.where(visible, logit_bias, -torch.inf)


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


# torch's own binding of the operator: by torch.ops, a call takes as long again as a short decode step.
flash_on_cpu = torch._scaled_dot_product_flash_attention_for_cpu
_flash_on_cuda = torch.ops.aten._scaled_dot_product_flash_attention.default
_math = torch.ops.aten._scaled_dot_product_attention_math.default
_efficient = torch.ops.aten._scaled_dot_product_efficient_attention.default
_cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention.default
