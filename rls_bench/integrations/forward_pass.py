"""One forward pass under way: what stands for all of its layers, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rls_bench.backends.interface import Launch
from rls_bench.integrations.passes import Stream
from rls_bench.integrations.statistics import PassRecord
from rls_bench.integrations.visibility import View, Visibility, read_mask, without_mask
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

if TYPE_CHECKING:
    from rls_bench.integrations.control import Control


@dataclass
class Pass:
    """One forward pass: what stands for all of its layers, and what they share. Never shared by two threads at once,
    but kept where gradient checkpointing runs its layers again.

    ``past`` and ``offsets`` are those of its Arguments; ``step`` is its last query's. ``strengths`` hold λ of each
    layer before heads and gates weigh it: a number, or [Lq] where it changes within the pass. ``openness`` [B] is that
    of a gate which waits a step.
    """

    control: Control
    batch: int
    query_length: int
    past: int
    offsets: Mapping[int, int]
    stream: Stream
    step: int
    strengths: list[float | Tensor]
    openness: Tensor | None = None
    record: PassRecord | None = None
    # Of layers, [B] each.
    signals: dict[int, Tensor] = field(default_factory=dict)
    # Whether a layer asked for its steered output; whether gradient checkpointing runs the layers again.
    reached: bool = False
    replayed: bool = False
    # Of masks, by what makes them differ; each is kept beside, so that no other takes its identity.
    _seen: dict[tuple[Any, ...], tuple[Tensor | None, Visibility]] = field(default_factory=dict)
    _biases: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)
    bound: dict[tuple[Any, ...], Inputs] = field(default_factory=dict)
    calls: dict[tuple[Any, ...], tuple[Launch, Any, Problem]] = field(default_factory=dict)

    def steers(self, layer: int) -> bool:
        """Whether λ may be other than 0 in ``layer``."""
        strength = self.strengths[layer]
        return self.control.steered_layers[layer] and (isinstance(strength, Tensor) or strength != 0)

    def visibility(self, mask: Tensor | None, is_causal: bool, query: Tensor, key: Tensor) -> Visibility:
        """What a layer's queries see of its keys: by its mask, or ``is_causal`` where it has none."""
        name = (id(mask), is_causal, key.shape[2])
        if name not in self._seen:
            if mask is None:
                seen = without_mask(is_causal, query.shape[2], key.shape[2], self.past)
            else:
                seen = read_mask(mask, query, key)
            self._seen[name] = (mask, seen)
        return self._seen[name][1]

    def bias(self, layer: int, key: Tensor) -> Tensor:
        """The bias of a layer's keys on their device: [Lk], or [B, Lk] where sequences have their own.

        Raises ValueError where the layer shows other keys than those of the tokens read so far.
        """
        length, offset = key.shape[2], self.offsets.get(layer, 0)
        name = (length, offset, key.device)
        if name not in self._biases:
            wanted = self.past + self.query_length
            if offset + length < wanted:
                raise ValueError(
                    f"keys of layer {layer}: wanted those of all {wanted} tokens so far, or a cache that tells which "
                    f"it dropped; got {length}; steer only layers that keep them, by heads="
                )
            bias = self.control.bias[:, offset : offset + length].to(key.device)
            bias = torch.nn.functional.pad(bias, (0, length - bias.shape[1]))
            rows = bias.shape[0]
            # Beams and several answers a prompt lie side by side.
            self._biases[name] = bias[0] if rows == 1 else bias.repeat_interleave(self.batch // rows, 0)
        return self._biases[name]

    def records(self, view: View) -> bool:
        """Whether a call is to give statistics: it has the last query, and its layer runs for the first time."""
        return view.queries.stop == self.query_length and not self.replayed

    def let_go(self) -> None:
        """Drop what holds a layer's tensors."""
        self._seen.clear()
        self.bound.clear()
        self.calls.clear()
