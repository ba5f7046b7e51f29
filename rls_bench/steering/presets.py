"""Published methods in this form, ``Z + λ b``: each returns the keyword arguments that the operator or ``steer`` takes.

A span is bool [..., Lk], true on the tokens to bring forward.
"""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor

from rls_bench.steering.heads import layer_mask
from rls_bench.steering.schedule import MassSchedule, spotlight_mass


class Steering(TypedDict, total=False):
    """Arguments of one way to steer: ``bias`` [..., Lk], ``strength``, and where it has them ``heads`` [layers, heads]
    and ``schedule``."""

    bias: Tensor
    strength: float
    heads: Tensor
    schedule: MassSchedule


def pasta(span: Tensor, heads: Tensor, alpha: float = 0.01) -> Steering:
    """PASTA (Zhang et al., 2023, arXiv 2311.02262): in profiled ``heads`` (bool [layers, heads]), attention to tokens
    off the span is multiplied by ``alpha`` in (0, 1] and renormalised, so their logits gain log alpha."""
    _positive("alpha", alpha)
    return Steering(bias=1 - _indicator(span), strength=math.log(alpha), heads=heads)


def instaboost(span: Tensor, multiplier: float = 10.0) -> Steering:
    """InstABoost (Guardieiro et al., 2025, arXiv 2506.13734): attention to the instruction is multiplied by
    ``multiplier`` and renormalised, in every head: its logits gain log multiplier."""
    _positive("multiplier", multiplier)
    return Steering(bias=_indicator(span), strength=math.log(multiplier))


def guide(span: Tensor, layers: range, model_layers: int, model_heads: int, delta: float = 1.0) -> Steering:
    """GUIDE (Silva et al., 2024, arXiv 2409.19001): logits of the span gain ``delta`` in the chosen ``layers``."""
    return Steering(bias=_indicator(span), strength=delta, heads=layer_mask(model_layers, model_heads, layers))


def spotlight(span: Tensor, target: float = 0.2) -> Steering:
    """Spotlight (Venkateswaran & Contractor, 2025, arXiv 2505.12025): where the span's mass ψ falls short of
    ``target``, its logits gain log(target / ψ)."""
    return Steering(bias=_indicator(span), strength=1.0, schedule=spotlight_mass(target))


def _indicator(span: Tensor) -> Tensor:
    if not isinstance(span, Tensor) or span.dtype != torch.bool:
        came = span.dtype if isinstance(span, Tensor) else type(span).__name__
        raise TypeError(f"span: wanted a bool Tensor [..., Lk], true on the tokens to bring forward; got {came}")
    return span.float()


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: wanted a positive number, got {value}")
