"""The attention mass on a span, from two LSEs of the fused pass, and the strength that brings it to a target.

With ``b`` the span's indicator (1 on the span, 0 elsewhere) and ψ the mass of A = softmax(Z) on it,
``exp(lse_steered - lse) = 1 - ψ + ψ exp(λ)``; so ψ needs no attention matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# λ at which to read ψ: its error is that of the LSEs over expm1(λ), so a small mass is read as exactly as a large one.
PROBE_STRENGTH = 8.0


def mass_from_lse(lse: Tensor, lse_steered: Tensor, strength: float | Tensor) -> Tensor:
    """Mass of the unsteered attention on a span, from a call whose bias was the span's indicator.

    ``lse`` and ``lse_steered`` are fields of AttentionStats [B, Hq, Lq]; ``strength`` > 0 is what the call had
    (broadcasts to them). Rows with no visible key give 0. What is off the span is read to some 1e-6 only: a mass
    nearer to 1 than that comes out as 1.
    """
    gained = torch.expm1((lse_steered - lse).double())
    over = torch.as_tensor(strength, dtype=torch.float64, device=lse.device).expm1()
    return (gained / over).clamp(0, 1).to(lse.dtype)


def strength_for_mass(mass: Tensor, target: float | Tensor) -> Tensor:
    """λ that turns ``mass`` on a span into ``target`` (0 < target < 1), for the span's indicator as bias.

    ``ψ' = ψ e^λ / (1 - ψ + ψ e^λ)`` gives ``λ = logit(target) - logit(mass)``. Where the span has no mass or all of
    it (no key of it is visible, or no other key) no λ can change that, and the answer is 0.
    """
    goal = torch.as_tensor(target, dtype=torch.float64, device=mass.device)
    if not bool(((goal > 0) & (goal < 1)).all()):
        raise ValueError(f"target: wanted a mass between 0 and 1, got {target}")
    movable = (mass > 0) & (mass < 1)
    present = mass.double().masked_fill(~movable, 0.5)
    return (goal.logit() - present.logit()).masked_fill(~movable, 0).to(mass.dtype)


def spotlight_strength(mass: Tensor, target: float | Tensor) -> Tensor:
    """Spotlight's λ: ``log(target / mass)`` where the mass falls short of ``target`` (0 < target <= 1), else 0.

    It is a first step towards the target: the renormalised mass ends between ``mass`` and ``target``.
    """
    goal = torch.as_tensor(target, dtype=torch.float64, device=mass.device)
    if not bool(((goal > 0) & (goal <= 1)).all()):
        raise ValueError(f"target: wanted a mass above 0, up to 1, got {target}")
    short = (mass > 0) & (mass < goal)
    present = mass.double().masked_fill(~short, 1)
    return (goal / present).log().masked_fill(~short, 0).to(mass.dtype)


def solve_strength(
    mass_at: Callable[[Tensor], Tensor], target: float, like: Tensor, *, greatest: float = 64.0, halvings: int = 30
) -> Tensor:
    """λ >= 0, shaped as ``like``, at which ``mass_at(λ)`` reaches ``target``, by bisection: for graded saliency.

    ``mass_at`` takes λ and returns the mass on the span under it, both shaped as ``like``; it should grow with λ,
    which it does where saliency is higher on the span than off it. Where even ``greatest`` falls short, that is the
    answer; where λ = 0 is enough already, 0.
    """
    low = torch.zeros_like(like)
    high = torch.full_like(like, greatest)
    enough = mass_at(low) >= target
    for _ in range(halvings):
        middle = (low + high) / 2
        reached = mass_at(middle) >= target
        high = torch.where(reached, middle, high)
        low = torch.where(reached, low, middle)
    return high.masked_fill(enough, 0)
