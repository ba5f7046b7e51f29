"""Value folding: plain attention on ``v' = [w v, w, seen]`` with ``w = exp(λ b)``, then one division.

``out = (Σ A w v + eps Σ w v) / (Σ A w + eps Σ w)`` is the published form exactly, eps included, and the plain kernel's
own normaliser cancels. λ must not vary with the query, nor across the query heads of a KV group.

The weights w are rounded to the values' dtype before they are folded, for both sums to weigh a key alike: where one
key holds a row, ``w v / w`` is off by the rounding of ``w v`` alone, which differs by column, and not by that of w too.

The weights A and w each underflow on their own, and so do their products with tiny values. Where a row's ``Σ A w``, or
that times the largest value, is below ``LEAST_MASS`` nothing is known of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The weight itself, and whether the key is visible.
EXTRA_COLUMNS = 2
# Weights below 1.2e-38 are lost in float32, and this is ten million times as much: what a row still holds is right.
LEAST_MASS = 1e-28


def key_weights(logit_bias: Tensor, visible: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``w = exp(λ b - max)``, float32 rounded to what ``dtype``, the values', holds; 0 at hidden keys.

    ``logit_bias`` float32 [..., Lk], ``visible`` bool alike or None.
    """
    if visible is not None:
        logit_bias = logit_bias.masked_fill(~visible, -torch.inf)
    peak = logit_bias.amax(-1, keepdim=True)
    # A batch entry with no visible key has a peak of -inf, and -inf - -inf is NaN.
    return (logit_bias - peak.masked_fill(peak == -torch.inf, 0.0)).exp().to(dtype).float()


def fold_values(value: Tensor, weights: Tensor, visible: Tensor | None) -> Tensor:
    """``[w v, w, seen]`` [B, Hkv, Lk, Dv + 2] in value's dtype.

    ``weights`` float32 [B or 1, Hkv or 1, Lk] as ``key_weights`` gives them for that dtype and ``visible``,
    bool alike or None.
    """
    shared = weights[..., None].expand(*value.shape[:-1], 1)
    # The kernel's weights run over hidden keys too. Their ratio does not mind, but eps must be given in the same
    # measure: times the share of the visible keys, a column of ones at them.
    seen = torch.ones_like(shared) if visible is None else visible[..., None].expand(shared.shape).float()
    return torch.cat((weights[..., None] * value.float(), shared, seen), dim=-1).to(value.dtype)


def unfold(sums: Tensor, value: Tensor, weights: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The output [B, Hq, Lq, Dv] in float32 from what plain attention made of the folded values, ``sums``; and the
    ``Σ A w`` (with eps, ``Σ (A + eps) w``) [B, Hq, Lq, 1] that it was divided by. Rows of which that is 0 hold NaN.
    """
    value_dim = value.shape[-1]
    numerator, mass, share = sums.float().split((value_dim, 1, sums.shape[-1] - value_dim - 1), dim=-1)
    if eps > 0.0:
        # The larger of 1 and eps is divided out, so that a large one times a large value doesn't overflow.
        unit = max(eps, 1.0)
        columns = torch.cat((value.float(), torch.ones_like(value[..., :1], dtype=torch.float32)), dim=-1)
        floor = eps / unit * (weights[..., None] * columns).sum(-2, keepdim=True)
        floor = floor.repeat_interleave(sums.shape[1] // value.shape[1], dim=1) * share[..., :1]
        numerator, mass = numerator / unit + floor[..., :-1], mass / unit + floor[..., -1:]
    return numerator / mass, mass
