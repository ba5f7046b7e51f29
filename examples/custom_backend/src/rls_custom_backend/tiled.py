"""Attention over tiles of keys, in plain torch: never more than one tile of scores in memory.

The running softmax is that of Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

TILE = 256


class Tiled(Backend):
    """Prepared once: nothing. Redone on each call: everything, so that a new saliency costs nothing extra."""

    name = "tiled"
    summary = "running softmax over tiles of keys (example of a third party)"
    kernels = ("bmm", "matmul")

    def supports(self, problem: Problem) -> Support:
        if problem.eps:
            return no("has no row sum for eps")
        if problem.return_stats:
            return no("keeps no row statistics")
        if problem.requires_grad:
            return no("has no backward pass that keeps to its tiles")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: tiled_attention(inputs)


BACKEND = Tiled()


def tiled_attention(inputs: Inputs) -> Tensor:
    """The steered output [B, Hq, Lq, Dv] in query's dtype; sums are float32. Queries without a key get 0."""
    problem = inputs.problem
    query = inputs.query.float() * inputs.scale
    bias, visible = inputs.logit_bias(), inputs.visible()
    # Padding may hold NaN, which a weight of 0 doesn't undo.
    key, value = inputs.without_padding()
    shape = (problem.batch, problem.query_heads, problem.query_length)
    peak = query.new_full((*shape, 1), -math.inf)
    total = query.new_zeros((*shape, 1))
    output = query.new_zeros((*shape, problem.value_dim))
    for start in range(0, problem.key_length, TILE):
        tile = slice(start, start + TILE)
        # [B, Hq, Lq, TILE]
        scores = query @ _for_each_query_head(key, problem, tile).mT + bias[..., tile]
        if visible is not None:
            scores = scores.masked_fill(~visible[..., tile], -math.inf)
        new_peak = torch.maximum(peak, scores.amax(-1, keepdim=True))
        # Rows that have seen no key yet: exp(-inf - -inf) would be NaN.
        shift = new_peak.masked_fill(new_peak.isinf(), 0.0)
        weights, kept = torch.exp(scores - shift), torch.exp(peak - shift)
        total = total * kept + weights.sum(-1, keepdim=True)
        output = output * kept + weights @ _for_each_query_head(value, problem, tile)
        peak = new_peak
    return (output / total.clamp_min(torch.finfo(torch.float32).tiny)).to(inputs.query.dtype)


def _for_each_query_head(keys: Tensor, problem: Problem, tile: slice) -> Tensor:
    """A tile of keys or values in float32, each head repeated for the query heads that share it."""
    return keys[:, :, tile].float().repeat_interleave(problem.group_size, dim=1)
