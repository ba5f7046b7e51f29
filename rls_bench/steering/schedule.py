"""How strength changes over depth and over decoding: each schedule gives the factor that λ is multiplied by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from rls_bench.steering.mass import spotlight_strength, strength_for_mass


class Position(NamedTuple):
    """Where a call stands: ``layer`` of ``layers``, and ``step``, 0 for the prompt and then one a decoded token."""

    layer: int
    layers: int
    step: int


Schedule = Callable[[Position], float]
Axis = Literal["layer", "step"]


def constant(factor: float = 1.0) -> Schedule:
    """The same factor everywhere."""
    return lambda position: factor


def linear(start: float, end: float, *, over: Axis = "step", length: int | None = None) -> Schedule:
    """A straight line from ``start`` to ``end`` over ``length`` places, and ``end`` from there on.

    ``over="layer"`` runs over depth and takes the model's layers as its length where none is given.
    """
    return lambda position: start + (end - start) * _progress(position, over, length)


def cosine(start: float, end: float, *, over: Axis = "step", length: int | None = None) -> Schedule:
    """Half a cosine from ``start`` to ``end``, flat at both; places as in ``linear``."""
    return lambda position: start + (end - start) * (1 - math.cos(math.pi * _progress(position, over, length))) / 2


def step(before: float, after: float, *, at: int, over: Axis = "step") -> Schedule:
    """``before`` up to place ``at``, ``after`` from it on."""
    return lambda position: before if _place(position, over) < at else after


def per_layer(factors: Sequence[float] | Mapping[int, float]) -> Schedule:
    """A factor for each layer; layers that a mapping leaves out get 0. A sequence must name every layer."""
    if isinstance(factors, Mapping):
        return lambda position: factors.get(position.layer, 0.0)
    listed = tuple(factors)

    def factor(position: Position) -> float:
        if len(listed) != position.layers:
            raise ValueError(f"factors: wanted one for each of {position.layers} layers, got {len(listed)}")
        return listed[position.layer]

    return factor


@dataclass(frozen=True)
class MassSchedule:
    """λ for each head and query from the attention mass that a span has there; bias must be the span's indicator.

    ``rule`` maps that mass [B, Hq, Lq] to λ of the same shape.
    """

    rule: Callable[[Tensor], Tensor]


def target_mass(target: float) -> MassSchedule:
    """Bring the span's mass to ``target`` exactly, in every head and query that sees the span and more."""
    return MassSchedule(lambda mass: strength_for_mass(mass, target))


def spotlight_mass(target: float) -> MassSchedule:
    """Spotlight's rule: ``log(target / mass)`` where the mass falls short."""
    return MassSchedule(lambda mass: spotlight_strength(mass, target))


def _place(position: Position, over: Axis) -> int:
    return position.layer if over == "layer" else position.step


def _progress(position: Position, over: Axis, length: int | None) -> float:
    if length is None:
        if over == "step":
            raise ValueError("length: wanted the number of decoding steps for a schedule over steps, got None")
        length = position.layers
    return min(_place(position, over) / (length - 1), 1.0) if length > 1 else 1.0
