"""When to steer: a gate opens where a signal says that the model may need help, and scales λ there.

Signals lie in [0, 1] and are high where help is due: ``output_entropy`` and ``output_doubt`` read the model's answer,
``disagreement`` compares where it looks with where saliency says to look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rls_bench.backends.interface import AttentionStats
from rls_bench.machines import vector_math

Signal = Literal["entropy", "margin", "disagreement"]


def output_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) over that of a uniform answer: [..., V] -> [...], 0 sure, 1 no idea."""
    vector_math.settle()
    log_p = logits.float().log_softmax(dim=-1)
    # p log p at p = 0 is 0, also where log p is -inf (a token that a processor ruled out).
    entropy = -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0)).sum(dim=-1)
    return entropy / math.log(logits.shape[-1]) if logits.shape[-1] > 1 else torch.zeros_like(entropy)


def output_doubt(logits: Tensor) -> Tensor:
    """One less the margin between the two likeliest answers: [..., V] -> [...], 0 sure, 1 a tie."""
    top = logits.float().softmax(dim=-1).topk(2, dim=-1).values
    return 1 - (top[..., 0] - top[..., 1])


def expected_saliency(stats: AttentionStats, strength: float | Tensor) -> Tensor:
    """``E_A[b]``, the saliency that the *unsteered* attention sees: [B, Hq, Lq].

    From the stats of a call with that bias and a ``strength`` other than 0 (broadcasts to [B, Hq, Lq]):
    ``KL(A ‖ A') = lse' - lse - λ E_A[b]``.
    """
    return (stats.lse_steered - stats.lse - stats.kl) / strength


def disagreement(expected: Tensor, bias: Tensor, visible: Tensor | None = None) -> Tensor:
    """How far attention lies from the salient keys, 0 where all of it is on the most salient key, 1 on the least.

    ``expected`` [..., Lq] is E_A[b] of each query, ``bias`` [..., Lk] the saliency (leading axes broadcast), and
    ``visible`` bool [..., Lq, Lk] says which keys each query sees (default all). Where every visible key is equally
    salient there is nothing to disagree about, and the answer is 0.
    """
    seen = bias[..., None, :]
    if visible is None:
        high, low = seen.amax(dim=-1), seen.amin(dim=-1)
    else:
        high = torch.where(visible, seen, -torch.inf).amax(dim=-1)
        low = torch.where(visible, seen, torch.inf).amin(dim=-1)
    return disagreement_between(expected, low, high)


def disagreement_between(expected: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``disagreement`` where the least and greatest saliency of each query's visible keys are known; all broadcast."""
    spread = high - low
    return torch.where(spread > 0, ((high - expected) / spread).clamp(0, 1), 0)


@dataclass(frozen=True)
class Gate:
    """Opens where ``signal`` exceeds ``threshold``.

    ``softness`` 0 makes it hard (open or shut); above 0 it opens as ``sigmoid((signal - threshold) / softness)``.
    Disagreement is read by a first pass in each layer and decides there for each head and query. ``lagged`` acts a step
    later instead, on its mean over steered heads: one decision for each sequence and step. The answer's entropy and
    margin exist only after a step, so those two are lagged always. ``initial`` is how far the gate stands open while no
    earlier step exists.
    """

    signal: Signal = "disagreement"
    threshold: float = 0.5
    softness: float = 0.0
    lagged: bool = False
    initial: float = 1.0

    def __post_init__(self) -> None:
        if self.signal not in get_args(Signal):
            raise ValueError(f"signal: wanted one of {', '.join(get_args(Signal))}; got {self.signal!r}")
        if not (math.isfinite(self.threshold) and math.isfinite(self.softness) and self.softness >= 0):
            raise ValueError(
                f"threshold, softness: wanted finite numbers, softness >= 0; got {self.threshold}, {self.softness}"
            )
        if not 0 <= self.initial <= 1:
            raise ValueError(f"initial: wanted a number from 0 (shut) to 1 (open); got {self.initial}")

    @property
    def waits_a_step(self) -> bool:
        """Whether it acts on the signal of the step before."""
        return self.lagged or self.signal != "disagreement"

    def openness(self, signal: Tensor) -> Tensor:
        """How far the gate opens, float in [0, 1] shaped as ``signal``: what λ is multiplied by."""
        if self.softness > 0:
            return torch.sigmoid((signal - self.threshold) / self.softness)
        return (signal > self.threshold).to(signal.dtype)


@dataclass
class GateMeter:
    """Counts how much was steered."""

    opened: float = 0.0
    total: int = 0

    def add(self, openness: Tensor) -> None:
        """Count one decision for each element of ``openness``."""
        self.opened += float(openness.sum())
        self.total += openness.numel()

    @property
    def share(self) -> float | None:
        """Mean openness of all decisions so far; None before the first."""
        return self.opened / self.total if self.total else None
