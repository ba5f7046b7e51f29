"""Launches the backward kernels, and brings what they write to the shapes of the inputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from rls_kernels.triton import configurations
from rls_kernels.triton.backward import key_gradient_kernel, query_gradient_kernel
from rls_kernels.triton.call import Call, Tensors, architecture, operands
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.launch import on
from rls_kernels.triton.operands import Forward, Saved


class Gradients(NamedTuple):
    """query, key and value in their dtypes, bias and strength float32, each in its input's shape."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    strength: Tensor


def backward(
    call: Call, tensors: Tensors, forward: Forward, gradient: Tensor, configuration: Configuration | None = None
) -> Gradients:
    """Gradients for ``gradient`` = dout [B, Hq, Lq, Dv]; the same every time (no atomics)."""
    by_query, by_key = configurations.backward(architecture(call.device), *call.shape_class, has_eps=call.eps > 0)
    if configuration is not None:
        by_query = by_key = configuration
    batch, heads, query_length = call.rows
    kv_heads, key_length = call.key.shape[1:3]
    gradient = gradient.contiguous()
    delta = (forward.out.float() * gradient.float()).sum(-1)
    query_gradient, key_gradient, value_gradient = (
        torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in tensors[:3]
    )
    bias_gradient = torch.empty((batch, heads, key_length), dtype=torch.float32, device=call.device)
    strength_gradient = torch.empty_like(forward.lse)
    given = operands(tensors, call.strides())
    saved = Saved(gradient, forward.lse, forward.norm, delta, torch.empty_like(forward.norm))
    numbers = (call.scale, call.eps, *call.sizes)
    constants = {**call.constants(), "PER_QUERY": call.is_per_query, "HAS_EPS": call.eps > 0}
    with on(call.device):
        query_gradient_kernel[(triton.cdiv(query_length, by_query.block_m) * batch * heads,)](
            given, saved, query_gradient, strength_gradient, *numbers, **constants, SLICE_D=by_query.slice_d,
            **by_query.constants(),
        )  # fmt: skip
        key_gradient_kernel[(triton.cdiv(key_length, by_key.block_n) * batch * kv_heads,)](
            given, saved, key_gradient, value_gradient, bias_gradient, *numbers, **constants,
            SLICE_D=by_key.slice_d, **by_key.constants(),
        )  # fmt: skip
    return Gradients(
        query_gradient,
        key_gradient,
        value_gradient,
        bias_gradient.sum_to_size(call.bias.shape),
        strength_gradient.sum_to_size(call.strength.shape),
    )
