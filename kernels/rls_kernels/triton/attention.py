"""Steered attention by our Triton kernels, as differentiable operators that torch.compile takes in whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rls_kernels.triton import forward, gradients
from rls_kernels.triton.call import Call, Tensors
from rls_kernels.triton.operands import Forward, filled


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
) -> tuple[Tensor, Tensor]:
    """``softmax(log(softmax(Z) + eps) + λ b) v`` with ``Z = scale · q kᵀ``, over visible keys alone.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D] and value [B, Hkv, Lk, Dv] share dtype and device, in any strides; Hq is
    a multiple of Hkv. bias is float32 [B or 1, Hq or 1, Lk], strength float32 [B or 1, Hq or 1, Lq or 1], key_lengths
    int32 [B]. Returns the output [B, Hq, Lq, Dv] in query's dtype, and float32 [5, B, Hq, Lq]: lse, lse_steered,
    entropy, entropy_steered and KL, empty unless asked for. ``scale`` is positive. Arguments are not checked here.

    Gradients flow to query, key, value, bias and strength through the output; the statistics have none.
    """
    out, _, _, stats = steered_forward(
        query, key, value, bias, strength, key_lengths, scale, eps, is_causal, return_stats
    )
    return out, stats


def prepare(
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
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """`steered_attention` for operands laid out as these (shapes, strides, dtypes, device), decided once.

    What comes back takes such operands and launches, with nothing between: no operator of torch's, so that nothing
    traces or differentiates it. It checks no layout. Threads may share it.
    """
    tensors = Tensors(query, key, value, bias, strength, key_lengths)
    run = forward.prepared(Call.of(tensors, scale, eps, is_causal), return_stats)

    def call(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: Tensor, key_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        written = run(filled(Tensors, (query, key, value, bias, strength, key_lengths)))
        return written.out, written.stats

    return call


def tune(
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
) -> None:
    """Choose block sizes for such a call by measuring, unless that was done before; later calls use the choice.

    Only prefill is tuned; the choice is kept on disk by device, versions and shape class. Needs CUDA tensors. Nothing
    else tunes: each candidate is a kernel to compile, which a few calls would never win back.
    """
    tensors = Tensors(query, key, value, bias, strength, key_lengths)
    forward.tune(Call.of(tensors, scale, eps, is_causal), tensors, return_stats)


@torch.library.custom_op("rls_kernels::steered_forward", mutates_args=())
def steered_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None,
    scale: float,
    eps: float,
    is_causal: bool,
    return_stats: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out, lse, norm and stats of ``operands.Forward``."""
    tensors = Tensors(query, key, value, bias, strength, key_lengths)
    call = Call.of(tensors, scale, eps, is_causal)
    written = forward.forward(call, tensors, return_stats)
    # An operator's outputs are tensors of their own, also those that nobody asked for.
    norm = written.norm if eps else written.lse.new_empty(0)
    stats = written.stats if return_stats else written.lse.new_empty(0)
    return written.out, written.lse, norm, stats


@steered_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, eps, _, return_stats = others
    rows = query.shape[:3]
    return (
        query.new_empty((*rows, value.shape[3])),
        query.new_empty(rows, dtype=torch.float32),
        query.new_empty(rows if eps else (0,), dtype=torch.float32),
        query.new_empty((5, *rows) if return_stats else (0,), dtype=torch.float32),
    )


@torch.library.custom_op("rls_kernels::steered_backward", mutates_args=())
def steered_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    key_lengths: Tensor | None,
    out: Tensor,
    lse: Tensor,
    norm: Tensor,
    gradient: Tensor,
    scale: float,
    eps: float,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, bias and strength for ``gradient`` = dout."""
    tensors = Tensors(query, key, value, bias, strength, key_lengths)
    call = Call.of(tensors, scale, eps, is_causal)
    saved = Forward(out, lse, norm, norm)
    found = gradients.backward(call, tensors, saved, gradient)
    return found.query, found.key, found.value, found.bias, found.strength


@steered_backward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (query, key, value, bias, strength)
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale, ctx.eps, ctx.is_causal, _ = inputs
    out, lse, norm, stats = output
    ctx.save_for_backward(*tensors, out, lse, norm)
    ctx.mark_non_differentiable(lse, norm, stats)


def _differentiate(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Any, ...]:
    gradients = steered_backward(*ctx.saved_tensors, gradient, ctx.scale, ctx.eps, ctx.is_causal)
    return *gradients, None, None, None, None, None


steered_forward.register_autograd(_differentiate, setup_context=_save)
