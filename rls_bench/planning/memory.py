"""What the operator remembers of its calls: for each kind, the backend chosen and what that made ready.

Bounded, and without a lock, so that a fork may come at any time: a full memory starts anew, and of two threads that
remember at once one may be forgotten, which costs its next call some hundred microseconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from rls_bench.backends.interface import Launch
from rls_bench.planning.likeness import Likeness
from rls_bench.problems.problem import Problem

MOST_KINDS = 512
# Calls of one kind that differ in strides, dtype or gradients.
MOST_ALIKE = 8


class Remembered(NamedTuple):
    """What serves calls that are alike, and what they ask."""

    likeness: Likeness
    launch: Launch
    problem: Problem


_remembered: dict[Hashable, tuple[Remembered, ...]] = {}


def recall(kind: Hashable, tensors: tuple[Tensor, ...]) -> Remembered | None:
    """What served an earlier call of this kind whose tensors were like these; None where there was none."""
    for found in _remembered.get(kind, ()):
        if found.likeness.holds(*tensors):
            return found
    return None


def keep(kind: Hashable, remembered: Remembered) -> None:
    """Remember what serves calls of this kind whose tensors are alike."""
    if len(_remembered) >= MOST_KINDS:
        _remembered.clear()
    _remembered[kind] = (remembered, *_remembered.get(kind, ()))[:MOST_ALIKE]


def forget() -> None:
    """Forget all."""
    _remembered.clear()
