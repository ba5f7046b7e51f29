"""The oracle: steered attention in float64, written to be read. Used by every agreement check, never timed.

It shares no code with any backend, materialises everything, and walks heads one by one so that each line is a
formula of the contract. Both forms are here: ours, which never attends a hidden key, and the published one with its
leak.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OracleResult(NamedTuple):
    """Float64 results: ``output`` [B, Hq, rows, Dv], every statistic [B, Hq, rows]."""

    output: Tensor
    lse: Tensor
    lse_steered: Tensor
    entropy: Tensor
    entropy_steered: Tensor
    kl: Tensor


def steered_attention_oracle(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor | float = 1.0,
    *,
    eps: float = 0.0,
    is_causal: bool = False,
    key_lengths: Tensor | None = None,
    scale: float | None = None,
    rows: Tensor | None = None,
    published: bool = False,
) -> OracleResult:
    """``A' = softmax(log(A + eps) + λ b)`` applied to ``value``, with ``A = softmax(scale · q kᵀ)``.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] with Hq a multiple of Hkv; bias and strength
    broadcast to [B, Hq, Lk] and [B, Hq, Lq] from the right-hand layouts of the contract (see ``spread``).
    ``rows`` (int64, indices into Lq) restricts the work to some queries. ``published=True`` adds eps to hidden keys
    too, as the publication does; the default gives eps to visible keys only. Rows with no visible key hold 0.

    Differentiable in query, key, value, bias and strength.
    """
    batch, query_heads, query_length, head_dim = query.shape
    key_length, group_size = key.shape[2], query_heads // key.shape[1]
    scale = head_dim**-0.5 if scale is None else scale
    rows = torch.arange(query_length, device="cpu") if rows is None else rows.cpu()
    bias = spread(bias, (batch, query_heads, key_length), "bias")
    strength = spread(_as_tensor(strength), (batch, query_heads, query_length), "strength")

    heads = []
    for b in range(batch):
        seen = visible_keys(rows, query_length, key_length, is_causal, None if key_lengths is None else key_lengths[b])
        for h in range(query_heads):
            q = query[b, h].double().cpu()[rows]
            k = key[b, h // group_size].double().cpu()
            v = value[b, h // group_size].double().cpu()
            steer = strength[b, h].double().cpu()[rows][:, None] * bias[b, h].double().cpu()[None, :]
            heads.append(_one_head(q, k, v, steer, seen, eps, scale, published))
    stacked = [torch.stack(column).unflatten(0, (batch, query_heads)) for column in zip(*heads, strict=True)]
    return OracleResult(*stacked)


def _as_tensor(strength: Tensor | float) -> Tensor:
    return strength if isinstance(strength, Tensor) else torch.tensor(strength, dtype=torch.float32, device="cpu")


def _one_head(
    q: Tensor, k: Tensor, v: Tensor, steer: Tensor, seen: Tensor, eps: float, scale: float, published: bool
) -> tuple[Tensor, ...]:
    """One head: q [rows, D], k [Lk, D], v [Lk, Dv], steer = λ b [rows, Lk], seen bool [rows, Lk]."""
    any_seen = seen.any(-1)
    # What no query sees may hold anything, and 0 times NaN is NaN.
    v = v.masked_fill(~seen.any(0)[:, None], 0.0)
    # A row that sees nothing is worked out on all keys, to stay free of NaN, and zeroed at the end.
    seen = seen | ~any_seen[:, None]
    hidden = ~seen

    scores = (scale * (q @ k.T)).masked_fill(hidden, -torch.inf)
    steered_scores = scores + steer
    log_a = scores.log_softmax(-1)
    if published:
        log_steered = (torch.log(log_a.exp() + eps) + steer).log_softmax(-1)
    elif eps == 0.0:
        log_steered = steered_scores.log_softmax(-1)
    else:
        log_eps = torch.tensor(eps, dtype=torch.float64, device="cpu").log()
        floored = torch.logaddexp(log_a.masked_fill(hidden, 0.0), log_eps).masked_fill(hidden, -torch.inf)
        log_steered = (floored + steer).log_softmax(-1)
    output = log_steered.exp() @ v

    # Telemetry describes the eps = 0 form.
    a, log_a_steered = log_a.exp(), steered_scores.log_softmax(-1)
    a_steered = log_a_steered.exp()
    finite_log_a = log_a.masked_fill(hidden, 0.0)
    finite_log_steered = log_a_steered.masked_fill(hidden, 0.0)
    statistics = (
        scores.logsumexp(-1),
        steered_scores.logsumexp(-1),
        -(a * finite_log_a).sum(-1),
        -(a_steered * finite_log_steered).sum(-1),
        (a * (finite_log_a - finite_log_steered)).sum(-1),
    )
    zero = ~any_seen
    return (output.masked_fill(zero[:, None], 0.0), *(s.masked_fill(zero, 0.0) for s in statistics))


def visible_keys(
    rows: Tensor, query_length: int, key_length: int, is_causal: bool, length: Tensor | int | None
) -> Tensor:
    """Which keys each query of ``rows`` sees, bool [rows, Lk]; causal is bottom-right aligned."""
    keys = torch.arange(key_length, device="cpu")
    seen = torch.ones(len(rows), key_length, dtype=torch.bool, device="cpu")
    if is_causal:
        seen &= keys[None, :] <= rows[:, None] + (key_length - query_length)
    if length is not None:
        seen &= (keys < int(length))[None, :]
    return seen


def spread(given: Tensor, shape: tuple[int, int, int], name: str) -> Tensor:
    """Expand a bias or strength of the contract's layouts to [B, Hq, L].

    bias: [L], [B, L] or [B, Hq, L]. strength: [], [Hq], [B, Hq] or [B, Hq, L]. Axes of 1 broadcast in 3-D.
    """
    if name == "bias":
        given = {1: lambda t: t[None, None], 2: lambda t: t[:, None], 3: lambda t: t}[given.ndim](given)
    else:
        views = {0: lambda t: t, 1: lambda t: t[None, :, None], 2: lambda t: t[:, :, None], 3: lambda t: t}
        given = views[given.ndim](given)
    return given.expand(shape)
