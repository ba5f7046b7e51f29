"""The published form as one would write it in a model file: every matrix materialised, weights in the inputs' dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    logit_bias: Tensor | None,
    visible: Tensor | None,
    *,
    eps: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``softmax(log(A + eps) + λ b) v`` with eps given to visible keys only.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv]; ``logit_bias`` = λ b float32, broadcast to
    [B, Hq, Lq, Lk], or None for plain attention; ``visible`` bool, likewise, or None where every key is visible.
    Matrix products run in query's dtype, the softmax in float32, as in transformers' eager attention.

    Returns the output [B, Hq, Lq, Dv] and, float32 [B, Hq, Lq, Lk] with -inf at hidden keys, the scaled scores Z
    and the steered scores Z + λ b.
    """
    scores = scaled_scores(query, key, visible, scale)
    steered = scores if logit_bias is None else scores + logit_bias

    logits = steered
    if eps > 0.0 and logit_bias is not None:
        # log(A + eps) from log A, so that neither underflows; a hidden key keeps its -inf.
        floored = torch.logaddexp(masked_log_softmax(scores, visible), scores.new_tensor(math.log(eps)))
        if visible is not None:
            floored = floored.masked_fill(~visible, -math.inf)
        logits = floored + logit_bias
    weights = masked_log_softmax(logits, visible).exp()
    if visible is not None:
        weights = weights.masked_fill(~visible, 0.0)
    return weights.to(query.dtype) @ _each_query_head(value, query), scores, steered


def scaled_scores(query: Tensor, key: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """``scale q kᵀ`` in float32 [B, Hq, Lq, Lk], -inf at hidden keys; the product is of query's dtype."""
    scores = (query @ _each_query_head(key, query).transpose(-2, -1)).float() * scale
    return scores if visible is None else scores.masked_fill(~visible, -math.inf)


def _each_query_head(tensor: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated for the query heads that share them."""
    group_size = query.shape[1] // tensor.shape[1]
    return tensor.repeat_interleave(group_size, dim=1) if group_size > 1 else tensor


def masked_log_softmax(logits: Tensor, visible: Tensor | None) -> Tensor:
    """``log_softmax`` over the last axis; rows with no visible key give 0 rather than NaN."""
    if visible is not None:
        logits = logits.masked_fill(~visible.any(-1, keepdim=True), 0.0)
    return logits.log_softmax(-1)


def row_statistics(scores: Tensor, steered: Tensor, visible: Tensor | None) -> tuple[Tensor, ...]:
    """lse, lse_steered, entropy, entropy_steered and KL(A ‖ A'), each float32 [B, Hq, Lq], of the scores above."""
    log_a, log_steered = masked_log_softmax(scores, visible), masked_log_softmax(steered, visible)
    a, a_steered = log_a.exp(), log_steered.exp()
    if visible is not None:
        # 0 · -inf is NaN: a hidden key's weight is 0, so any finite logarithm serves.
        log_a, log_steered = log_a.masked_fill(~visible, 0.0), log_steered.masked_fill(~visible, 0.0)
        # A row that sees nothing has no logarithm, and would have a gradient of NaN.
        unseeing = ~visible.any(-1, keepdim=True)
        scores, steered = scores.masked_fill(unseeing, 0.0), steered.masked_fill(unseeing, 0.0)
    statistics = (
        scores.logsumexp(-1),
        steered.logsumexp(-1),
        -(a * log_a).sum(-1),
        -(a_steered * log_steered).sum(-1),
        (a * (log_a - log_steered)).sum(-1),
    )
    if visible is None:
        return statistics
    empty = ~visible.any(-1).expand(scores.shape[:-1])
    return tuple(s.masked_fill(empty, 0.0) for s in statistics)
