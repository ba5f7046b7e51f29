"""What steering did to the attention, and to the answers.

Functions on an attention matrix take probabilities [..., Lk] and floor every logarithm with ``eps``, as the published
experiment does. Where only row statistics exist (``return_stats=True``), ``entropy_reduction_percent`` and means of
``AttentionStats.kl`` give the same metrics without the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rls_bench.machines import vector_math

PUBLISHED_EPS = 1e-9


def entropy(attention: Tensor, eps: float = PUBLISHED_EPS) -> Tensor:
    """``-Σ A log(A + eps)`` over the last axis, nats: [..., Lk] -> [...]."""
    vector_math.settle()
    return -(attention * torch.log(attention + eps)).sum(dim=-1)


def kl_divergence(attention: Tensor, steered: Tensor, eps: float = PUBLISHED_EPS) -> Tensor:
    """``KL(A ‖ A') = Σ A (log(A + eps) - log(A' + eps))`` over the last axis, nats: [..., Lk] -> [...]."""
    vector_math.settle()
    return (attention * (torch.log(attention + eps) - torch.log(steered + eps))).sum(dim=-1)


def entropy_reduction_percent(entropy: Tensor, entropy_steered: Tensor) -> float:
    """How much lower the mean entropy is after steering, percent of the mean before; 0 where that mean is 0."""
    base = entropy.double().mean()
    return float((base - entropy_steered.double().mean()) / base * 100) if base else 0.0


def attention_mass(attention: Tensor, span: Tensor) -> Tensor:
    """Attention [..., Lk] that falls on ``span`` (bool, broadcasts): [...]."""
    return attention.masked_fill(~span, 0).sum(dim=-1)


def hit_at_1(attention: Tensor, span: Tensor) -> Tensor:
    """Whether the key that is attended most lies in ``span`` (bool, broadcasts): bool [...]; the first of equals."""
    most = attention.argmax(dim=-1, keepdim=True)
    return span.expand_as(attention).gather(-1, most).squeeze(-1)


@dataclass(frozen=True)
class Flips:
    """How many answers steering turned: ``fixed`` from wrong to right, ``broken`` from right to wrong, of ``total``."""

    fixed: int
    broken: int
    total: int

    @property
    def net_points(self) -> float:
        """Percentage points that accuracy gains."""
        return 100 * (self.fixed - self.broken) / self.total if self.total else 0.0


def flips(base_correct: Tensor, steered_correct: Tensor) -> Flips:
    """Compare two runs over the same items, each bool [items].

    Raises ValueError where the shapes differ: the runs must have answered the same items.
    """
    if base_correct.shape != steered_correct.shape:
        raise ValueError(
            f"steered_correct: wanted the items of base_correct {tuple(base_correct.shape)}, "
            f"got {tuple(steered_correct.shape)}"
        )
    base, steered = base_correct.bool(), steered_correct.bool()
    return Flips(int((~base & steered).sum()), int((base & ~steered).sum()), base.numel())
