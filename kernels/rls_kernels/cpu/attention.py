"""The steered-attention operator on CPU: torch.library op, its fake and its gradient, and the public function."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rls_kernels.cpu import launch
from rls_kernels.cpu import library as lib


class RowStatistics(NamedTuple):
    """Row statistics of the eps = 0 form, each float32 [batch, query_heads, query_length]; 0 for an unseeing row."""

    lse: Tensor
    lse_steered: Tensor
    entropy: Tensor
    entropy_steered: Tensor
    kl: Tensor


def steered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    *,
    scale: float,
    eps: float = 0.0,
    is_causal: bool = False,
    key_lengths: Tensor | None = None,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, RowStatistics]:
    """``softmax(log(softmax(scale q kᵀ) + eps) + strength · bias) v`` over the keys that each query sees.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D] and value [B, Hkv, Lk, Dv] share one dtype (float32, bfloat16 or
    float16) and lie on the CPU; Hq is a multiple of Hkv; D and Dv are at most 256. bias is float32
    [B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths int32 [B]. Causal is aligned to the
    bottom right. The output is [B, Hq, Lq, Dv] in query's dtype. Differentiable in query, key, value, bias and
    strength; the statistics aren't.
    """
    tracked = (query, key, value, bias, strength)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tracked)
    want = lib.ALL_ROWS if return_stats else lib.NORMALISERS if needs_grad else lib.NO_ROWS
    out, rows = torch.ops.rls_kernels.cpu_forward.default(
        query, key, value, bias, strength, key_lengths, scale, eps, is_causal, want
    )
    if not return_stats:
        return out
    return out, statistics(rows.detach())


def statistics(rows: Tensor) -> RowStatistics:
    """From float32 rows [ROWS, B, Hq, Lq], all of them filled."""
    planes = rows.unbind()
    wanted = (lib.LSE, lib.LSE_STEERED, lib.ENTROPY, lib.ENTROPY_STEERED, lib.DIVERGENCE)
    return RowStatistics(*(planes[plane] for plane in wanted))


# Defined by schema: the wrapper of torch.library.custom_op costs more than a short decode step itself.
torch.library.define(
    "rls_kernels::cpu_forward",
    "(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor strength, Tensor? key_lengths, float scale,"
    " float eps, bool is_causal, int want) -> (Tensor, Tensor)",
)


@torch.library.impl("rls_kernels::cpu_forward", "CPU")
def _forward_on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None,
    scale: float,
    eps: float,
    is_causal: bool,
    want: int,
) -> tuple[Tensor, Tensor]:
    """Output, and rows [ROWS, B, Hq, Lq] of which ``want`` says how much is filled."""
    operands = launch.Operands(query, key, value, bias, strength, key_lengths, scale, is_causal)
    return launch.forward(operands, eps, want)


@torch.library.register_fake("rls_kernels::cpu_forward")
def _(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    *_, want = others
    row_shape = query.shape[:3]
    rows = query.new_empty((lib.ROWS if want else 0, *row_shape), dtype=torch.float32)
    return query.new_empty((*row_shape, value.shape[3])), rows


@torch.library.custom_op("rls_kernels::cpu_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None,
    rows: Tensor,
    scale: float,
    eps: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    operands = launch.Operands(query, key, value, bias, strength, key_lengths, scale, is_causal)
    query_grad, key_grad, value_grad, bias_grad, strength_grad = launch.backward(operands, eps, grad_out, rows)
    return query_grad, key_grad, value_grad, bias_grad, strength_grad


@_backward.register_fake
def _(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    query_grad, key_grad, value_grad, bias_grad, strength_grad = (
        given.new_empty(given.shape) for given in (query, key, value, bias, strength)
    )
    return query_grad, key_grad, value_grad, bias_grad, strength_grad


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.eps, ctx.is_causal, _ = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, rows = ctx.saved_tensors
    grads = _backward(grad_out, *tensors, rows, ctx.scale, ctx.eps, ctx.is_causal)
    wanted = ctx.needs_input_grad[: len(grads)]
    return (*(grad if needed else None for grad, needed in zip(grads, wanted, strict=True)), *(None,) * 5)


torch.library.register_autograd("rls_kernels::cpu_forward", _differentiate, setup_context=_save_for_backward)
