"""Value folding: plain attention on ``v' = [w v, w]`` with ``w = exp(λ b)``, then one division.

``out = (Σ A w v + eps Σ w v) / (Σ A w + eps Σ w)`` is the published form exactly, eps included, and the plain kernel's
own normaliser cancels. λ must not vary with the query, nor across the query heads of a KV group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# The weight itself, and whether the key is visible.
EXTRA_COLUMNS = 2


def key_weights(logit_bias: Tensor, visible: Tensor | None) -> Tensor:
    """``w = exp(λ b - max)``, 0 at hidden keys; ``logit_bias`` float32 [..., Lk], ``visible`` bool alike or None."""
    if visible is not None:
        logit_bias = logit_bias.masked_fill(~visible, -torch.inf)
    peak = logit_bias.amax(-1, keepdim=True)
    # A batch entry with no visible key has a peak of -inf, and -inf - -inf is NaN.
    return (logit_bias - peak.masked_fill(peak == -torch.inf, 0.0)).exp()


def value_folded_attention(
    query: Tensor, key: Tensor, value: Tensor, weights: Tensor, visible: Tensor | None, *, eps: float, scale: float
) -> Tensor:
    """Steered attention through torch's flash kernel.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv]; ``weights`` float32 [B or 1, Hkv or 1, Lk] as
    ``key_weights`` gives them for ``visible``, bool alike or None. Rows whose weights are all 0 give 0.
    """
    value_dim = value.shape[-1]
    weighted = weights[..., None] * value.float()
    shared = weights[..., None].expand(*value.shape[:-1], 1)
    # The kernel's weights run over hidden keys too. Their ratio does not mind, but eps must be given in the same
    # measure: times the share of the visible keys, a column of ones at them.
    seen = torch.ones_like(shared) if visible is None else visible[..., None].expand(shared.shape).float()
    folded = torch.cat((weighted, shared, seen), dim=-1).to(value.dtype)

    # The kernel wants Dq = Dk = Dv: zero columns leave every score as it is.
    width = max(query.shape[-1], value_dim + EXTRA_COLUMNS)
    query, key = (F.pad(t, (0, width - t.shape[-1])) for t in (query, key))
    folded = F.pad(folded, (0, width - folded.shape[-1]))
    group_size = query.shape[1] // key.shape[1]
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        sums = F.scaled_dot_product_attention(query, key, folded, scale=scale, enable_gqa=group_size > 1)
    numerator, denominator = sums[..., :value_dim].float(), sums[..., value_dim : value_dim + 1].float()
    if eps > 0.0:
        floor = eps * torch.cat((weighted, shared), dim=-1).sum(-2, keepdim=True)
        floor = floor.repeat_interleave(group_size, dim=1) * sums[..., value_dim + 1 : value_dim + 2].float()
        numerator, denominator = numerator + floor[..., :-1], denominator + floor[..., -1:]
    empty = denominator == 0.0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0).to(query.dtype)
