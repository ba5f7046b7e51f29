"""Which heads to steer: masks over layers and heads, and a search for the heads that look where they are told."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec
import torch
from torch import Tensor


def head_mask(layers: int, heads: int, chosen: Iterable[tuple[int, int]]) -> Tensor:
    """Bool [layers, heads], true at each (layer, head) of ``chosen``."""
    mask = torch.zeros(layers, heads, dtype=torch.bool, device="cpu")
    for layer, head in chosen:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"chosen: wanted (layer, head) inside {layers} layers × {heads} heads, got {(layer, head)}"
            )
        mask[layer, head] = True
    return mask


def layer_mask(layers: int, heads: int, chosen: Iterable[int]) -> Tensor:
    """Bool [layers, heads], true for every head of the ``chosen`` layers."""
    return head_mask(layers, heads, [(layer, head) for layer in chosen for head in range(heads)])


@dataclass(frozen=True)
class RankedHead:
    """One head: the mean attention ``mass`` that it puts on the salient span, and the ``gain`` in score when it alone
    is steered (None where that was not tried)."""

    layer: int
    head: int
    mass: float
    gain: float | None = None


@dataclass(frozen=True)
class GroundingHeads:
    """Heads of a model from the most to the least useful to steer, the score without steering, and where from."""

    layers: int
    heads: int
    base_score: float
    ranking: list[RankedHead]
    provenance: dict[str, str | int | float] = field(default_factory=dict)

    def mask(self, count: int) -> Tensor:
        """Bool [layers, heads], true for the best ``count`` heads."""
        return head_mask(self.layers, self.heads, [(entry.layer, entry.head) for entry in self.ranking[:count]])

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> GroundingHeads:
        """Read what ``save`` wrote; raises ValueError where the file holds something else."""
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: wanted the grounding heads that GroundingHeads.save wrote: {error}") from error


def find_grounding_heads(
    span_mass: Tensor,
    score: Callable[[Tensor], float],
    *,
    candidates: int = 16,
    provenance: Mapping[str, str | int | float] | None = None,
) -> GroundingHeads:
    """Rank heads by the attention mass on the salient span, then by what steering each alone is worth.

    ``span_mass`` [layers, heads] is the mean mass over a calibration split (``mass_from_lse`` gives it without the
    matrix). ``score`` takes a bool mask [layers, heads] and returns the model's score on that split with just those
    heads steered; it is called once with no head, then once for each of the ``candidates`` heads of greatest mass.
    The tried heads come first, by gain; the rest follow by mass. ``provenance`` is what the caller knows (model,
    split, strength); versions and the time are added.
    """
    if span_mass.dim() != 2:
        raise ValueError(f"span_mass: wanted [layers, heads], got {tuple(span_mass.shape)}")
    layers, heads = span_mass.shape
    by_mass = [divmod(int(index), heads) for index in span_mass.flatten().argsort(descending=True, stable=True)]
    base = score(head_mask(layers, heads, []))
    tried = [
        RankedHead(layer, head, float(span_mass[layer, head]), score(head_mask(layers, heads, [(layer, head)])) - base)
        for layer, head in by_mass[:candidates]
    ]
    # Sorting is stable: heads of equal gain stay in order of mass.
    tried.sort(key=lambda entry: -(entry.gain or 0.0))
    untried = [RankedHead(layer, head, float(span_mass[layer, head])) for layer, head in by_mass[candidates:]]
    return GroundingHeads(
        layers,
        heads,
        base,
        tried + untried,
        {
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "rls_bench": version("rls-bench"),
            "torch": version("torch"),
            **(provenance or {}),
        },
    )
