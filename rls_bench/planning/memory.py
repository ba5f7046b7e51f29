"""What the operator remembers of its calls: for each kind, the backend chosen and what that made ready.

Bounded, and without a lock, so that a fork may come at any time: a full memory starts anew, and of two threads that
remember at once one may be forgotten, which costs its next call some hundred microseconds.
"""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from rls_bench.backends.interface import Launch
from rls_bench.planning.likeness import Likeness

MOST_KINDS = 512
# Calls of one kind that differ in strides, dtype or gradients.
MOST_ALIKE = 8

_launches: dict[Hashable, tuple[tuple[Likeness, Launch], ...]] = {}


def recall(kind: Hashable, tensors: tuple[Tensor, ...]) -> Launch | None:
    """The launch of an earlier call of this kind whose tensors were like these; None where there was none."""
    for likeness, launch in _launches.get(kind, ()):
        if likeness.holds(*tensors):
            return launch
    return None


def keep(kind: Hashable, likeness: Likeness, launch: Launch) -> None:
    """Remember what serves calls of this kind whose tensors are alike."""
    if len(_launches) >= MOST_KINDS:
        _launches.clear()
    _launches[kind] = ((likeness, launch), *_launches.get(kind, ()))[:MOST_ALIKE]


def forget() -> None:
    """Forget all."""
    _launches.clear()
