"""Published methods in this form, ``Z + λ b``: each returns the keyword arguments that the operator or ``steer`` takes.

A span is bool [..., Lk], true on the tokens to bring forward. ``spotlight`` also takes their positions in the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from rls_bench.steering.heads import layer_mask
from rls_bench.steering.schedule import MassSchedule, spotlight_mass


class Steering(TypedDict, total=False):
    """Arguments of one way to steer: ``bias`` [..., Lk], ``strength``, and where it has them ``heads`` [layers, heads],
    ``schedule``, and ``pad_bias`` where the prompt may go on after ``bias``."""

    bias: Tensor
    strength: float
    heads: Tensor
    schedule: MassSchedule
    pad_bias: bool


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


def spotlight(span: Tensor | Sequence[int] | slice, target: float = 0.2) -> Steering:
    """Spotlight (Venkateswaran & Contractor, 2025, arXiv 2505.12025): where the span's mass ψ falls short of
    ``target``, its logits gain log(target / ψ).

    ``span`` may also be positions in the prompt, padding counted: a list, ``range(3, 9)`` or ``slice(3, 9)``. The bias
    ends with the last of them then, and the rest of the prompt gets 0.
    """
    schedule = spotlight_mass(target)
    if isinstance(span, (Sequence, slice)) and not isinstance(span, str):
        return Steering(bias=_at(span), strength=1.0, schedule=schedule, pad_bias=True)
    return Steering(bias=_indicator(span), strength=1.0, schedule=schedule)


def _at(span: Sequence[int] | slice) -> Tensor:
    """The indicator of positions, [last + 1]."""
    if isinstance(span, slice) and span.stop is None:
        raise ValueError("span: wanted a slice with an end, slice(3, 9); got one without")
    positions = range(span.stop)[span] if isinstance(span, slice) else span
    wrong = [position for position in positions if isinstance(position, bool) or not isinstance(position, int)]
    if wrong or not len(positions) or min(positions) < 0:
        raise ValueError(f"span: wanted positions in the prompt, whole numbers from 0; got {span!r}")
    bias = torch.zeros(max(positions) + 1, dtype=torch.float32, device="cpu")
    bias[list(positions)] = 1
    return bias


def _indicator(span: object) -> Tensor:
    if not isinstance(span, Tensor) or span.dtype != torch.bool:
        came = span.dtype if isinstance(span, Tensor) else type(span).__name__
        raise TypeError(f"span: wanted a bool Tensor [..., Lk], true on the tokens to bring forward; got {came}")
    return span.float()


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}: wanted a positive number, got {value}")
