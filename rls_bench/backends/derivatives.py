"""Derivatives that our fused kernels don't give themselves: the statistics', worked out here; forward-mode, refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from rls_baselines.eager import row_statistics, scaled_scores
from torch import Tensor
from torch.autograd import forward_ad

from rls_bench.backends.interface import AttentionStats
from rls_bench.backends.own_dtype import in_own_dtype
from rls_bench.errors import BackendUnsupported
from rls_bench.problems.inputs import Inputs

# Scores that stand at once while the statistics are differentiated.
_MOST_SCORES = 2**22


def refuse_tangents(backend: str, inputs: Inputs) -> None:
    """Raise BackendUnsupported where an input carries a tangent of forward-mode differentiation, which a kernel of our
    own would drop. Costs nothing outside of it.
    """
    if forward_ad._current_level < 0:
        return
    for name, tensor in inputs.tensors().items():
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise BackendUnsupported(
                f"backend {backend!r}: {name} carries a tangent, and it has no forward-mode derivative; take 'eager' "
                "or 'sdpa-math', or differentiate backwards"
            )


def differentiable(inputs: Inputs, stats: AttentionStats) -> AttentionStats:
    """``stats`` of ``inputs`` with gradients to query, key, bias and strength, where any is wanted.

    The gradients come from the scores, worked out anew in float32 as eager attention does, some queries at a time.
    """
    if not inputs.problem.requires_grad:
        return stats
    named = (inputs.query, inputs.key, inputs.bias, inputs.strength)
    return AttentionStats(*_Statistics.apply(inputs, *named, *(figure.detach() for figure in stats)))


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Inputs, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(figure.view_as(figure) for figure in tensors[4:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.inputs = inputs[0]
        ctx.save_for_backward(*inputs[1:5])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, bias, strength = (tensor.detach() for tensor in ctx.saved_tensors)
        inputs = replace(ctx.inputs, query=query, key=key, bias=bias, strength=strength)
        problem = inputs.problem
        rows = max(1, _MOST_SCORES // (problem.batch * problem.query_heads * problem.key_length))
        query_gradients, strength_gradients = [], []
        key_gradient, bias_gradient = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (key, bias))
        for start in range(0, problem.query_length, rows):
            part = slice(start, start + rows)
            of_query, of_key, of_bias, of_strength = _gradients(inputs, part, [each[:, :, part] for each in gradients])
            query_gradients.append(of_query)
            strength_gradients.append(of_strength)
            key_gradient += of_key
            bias_gradient += of_bias
        by_query = strength.shape[2] > 1
        strength_gradient = torch.cat(strength_gradients, 2) if by_query else torch.stack(strength_gradients).sum(0)
        query_gradient = torch.cat(query_gradients, 2)
        found = (query_gradient.to(query.dtype), key_gradient.to(key.dtype), bias_gradient, strength_gradient)
        return None, *found, *(None,) * len(gradients)


def _gradients(inputs: Inputs, part: slice, gradients: list[Tensor]) -> tuple[Tensor, ...]:
    """Of query, key, bias and strength in float32, through the statistics of the queries ``part``."""
    visible = inputs.visible()
    if visible is not None and visible.shape[2] > 1:
        visible = visible[:, :, part]
    strength = inputs.strength[:, :, part] if inputs.strength.shape[2] > 1 else inputs.strength
    with torch.enable_grad(), in_own_dtype(inputs.query):
        leaves = [
            tensor.float().requires_grad_()
            for tensor in (inputs.query[:, :, part], inputs.without_padding()[0], inputs.bias, strength)
        ]
        query, key, bias, strength = leaves
        scores = scaled_scores(query, key, visible, inputs.scale)
        figures = row_statistics(scores, scores + strength[..., None] * bias[:, :, None, :], visible)
        return torch.autograd.grad(figures, leaves, gradients)
