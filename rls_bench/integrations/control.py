"""How a model's attention layers are steered while a context is open: λ of each layer, head, query and step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rls_bench.attention import steered_attention
from rls_bench.backends import registry
from rls_bench.backends.interface import LayerCall
from rls_bench.integrations.visibility import View, Visibility
from rls_bench.policy import dispatch
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs
from rls_bench.steering.gate import Gate, GateMeter, disagreement_between, expected_saliency
from rls_bench.steering.mass import PROBE_STRENGTH, mass_from_lse
from rls_bench.steering.schedule import MassSchedule, Position, Schedule, constant

# λ of the pass that a gate looks at: any number but 0 tells it the same.
_GATE_PROBE = 1.0


class Control:
    """One steered model: what to add, where, how strongly and when.

    ``bias`` is float32 [1 or B, P] over the prompt's tokens, padding included; keys after them get 0. ``heads`` weighs
    λ, float32 [layers, Hq]. ``step`` is 0 for a pass with several queries (a prompt), then counts decoded tokens.
    """

    def __init__(
        self,
        bias: Tensor,
        strength: float,
        heads: Tensor,
        gate: Gate | None = None,
        schedule: Schedule | MassSchedule | None = None,
        backend: str = "auto",
    ) -> None:
        self.step = 0
        self._bias = bias
        self._strength = strength
        self._heads = heads
        self._gate = gate
        self._mass_rule = schedule.rule if isinstance(schedule, MassSchedule) else None
        self._schedule = constant() if schedule is None or isinstance(schedule, MassSchedule) else schedule
        self._backend = backend
        self._plain = gate is None and self._mass_rule is None
        # Read once: on a GPU, asking a tensor for its values would stall every layer.
        self._steered = heads.any(dim=-1).tolist()
        self._alike = [float(row[0]) if bool((row == row[0]).all()) else None for row in heads]
        self._rows = _distinct(heads)
        self._meter = GateMeter()
        self._signals: list[Tensor] = []
        self._openness: Tensor | None = None
        self._visibility: Visibility | None = None
        self._bound: dict[tuple[Any, ...], Inputs] = {}
        self._calls: dict[tuple[Any, ...], LayerCall] = {}

    @property
    def share_steered(self) -> float | None:
        """Mean openness of the gate so far: over steered heads and queries, or over sequences and steps where it acts a
        step late. None without a gate, or before the first pass."""
        return self._meter.share

    def begin(self, batch: int, query_length: int, key_length: int) -> None:
        """A forward pass begins; lengths are those of its first attention layer."""
        prompt = query_length > 1 or key_length == 1
        self.step = 0 if prompt else self.step + 1
        self._fit_bias(batch, key_length)
        self._visibility = None
        layers = len(self._steered)
        self._numbers = [self._strength * self._schedule(Position(layer, layers, self.step)) for layer in range(layers)]
        if self._gate is not None and self._gate.waits_a_step:
            if prompt or not self._signals:
                self._openness = torch.full((batch,), self._gate.initial, device=self._bias.device)
            else:
                self._openness = self._gate.openness(torch.stack(self._signals).mean(0))
            self._signals.clear()
            self._meter.add(self._openness)

    def see_answer(self, signal: Tensor) -> None:
        """What the model's answer tells the gate for the step to come, [B]."""
        self._signals = [signal]

    def end(self) -> None:
        """The context is left: let go of the last pass's tensors, which whoever keeps this would keep, too."""
        self._visibility = None
        self._bound.clear()
        self._calls.clear()

    def steers(self, layer: int) -> bool:
        """Whether λ may be other than 0 in ``layer`` at this step."""
        return self._steered[layer] and self._numbers[layer] != 0

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, scale: float | None
    ) -> Tensor:
        """The layer's steered output [B, Hq, Lq, Dv]."""
        if visibility is not self._visibility:
            self._visibility = visibility
            self._bound.clear()
            self._calls.clear()
        signals: list[Tensor] = []

        def call(view: View) -> Tensor:
            if self._plain:
                return self._attend_plain(layer, view, scale)
            return self._operator(view, self._strength_at(view, layer, scale, signals), scale)

        output = visibility.attend(call, query, key, value, self._fitted_to(query))
        if signals:
            self._signals.append(torch.cat(signals))
        return output

    def _strength_at(self, view: View, layer: int, scale: float | None, signals: list[Tensor]) -> Tensor:
        """λ of one call where a gate or the span's mass decides it, [b, Hq, lq]."""
        weights = self._heads[layer].to(view.query.device)
        strength = self._of_heads(layer, view.query.device)[None, :, None]
        if self._mass_rule is not None:
            stats = self._stats(view, PROBE_STRENGTH, scale)
            strength = strength * self._mass_rule(mass_from_lse(stats.lse, stats.lse_steered, PROBE_STRENGTH))
        if self._gate is not None and self._gate.signal == "disagreement":
            expected = expected_saliency(self._stats(view, _GATE_PROBE, scale), _GATE_PROBE)
            disagreement = disagreement_between(expected, *_range_of_visible(view))[:, weights != 0]
            if self._gate.lagged:
                signals.append(disagreement[:, :, -1].mean(-1))
            else:
                openness = torch.zeros_like(expected)
                openness[:, weights != 0] = self._gate.openness(disagreement)
                self._meter.add(openness[:, weights != 0])
                strength = strength * openness
        if self._openness is not None:
            strength = strength * self._openness[view.rows, None, None]
        return strength.expand(*view.query.shape[:3])

    def _stats(self, view: View, strength: float, scale: float | None) -> Any:
        return self._operator(view, strength, scale, return_stats=True)[1]

    def _operator(self, view: View, strength: float | Tensor, scale: float | None, return_stats: bool = False) -> Any:
        return steered_attention(
            view.query,
            view.key,
            view.value,
            view.bias,
            strength,
            is_causal=view.is_causal,
            key_lengths=view.key_lengths,
            scale=scale,
            enable_gqa=True,
            backend=self._backend,
            return_stats=return_stats,
            # The bias was checked when the context was entered.
            check_values=False,
        )

    def _attend_plain(self, layer: int, view: View, scale: float | None) -> Tensor:
        """λ known beforehand. Layers of a pass that see the same keys differ in query, key and value alone then, and at
        a token a step, checking, choosing and preparing anew in each would cost more than steering does."""
        query, key, value, bias, rows, is_causal, key_lengths = view
        number, alike = self._numbers[layer], self._alike[layer]
        tracked = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        shapes = (query.shape, key.shape, value.shape)
        same = (alike is None, rows.start, *shapes, query.dtype, query.device, is_causal, scale, tracked)
        of_strength = (number, self._rows[layer], same)
        call = self._calls.get(of_strength)
        if call is None:
            inputs = self._bound.get(same)
            if inputs is None or alike is not None:
                inputs = self._bound[same] = bind(
                    query,
                    key,
                    value,
                    bias,
                    self._of_heads(layer, query.device) if alike is None else number * alike,
                    is_causal=is_causal,
                    key_lengths=key_lengths,
                    scale=scale,
                    enable_gqa=True,
                    # The bias was checked when the context was entered.
                    check_values=False,
                )
            else:
                # Only λ of each head is another one.
                inputs = replace(inputs, strength=self._of_heads(layer, query.device)[None, :, None])
            backend = registry.get(dispatch.resolve(self._backend, inputs.problem))
            call = self._calls[of_strength] = backend.prepare_layers(inputs)
        return call(query, key, value)

    def _of_heads(self, layer: int, device: torch.device) -> Tensor:
        """λ of each head before a gate or a mass has its say, [Hq]."""
        return self._numbers[layer] * self._heads[layer].to(device)

    def _fitted_to(self, query: Tensor) -> Tensor:
        """The bias of this pass on query's device, [Lk] where the whole batch shares it."""
        if query.device not in self._fitted:
            self._fitted[query.device] = self._fitted[self._bias.device].to(query.device)
        return self._fitted[query.device]

    def _fit_bias(self, batch: int, key_length: int) -> None:
        """``bias`` over the keys of this pass: [1 or B, Lk], 0 after the prompt, which may come in chunks."""
        rows, prompt = self._bias.shape
        if prompt > key_length and self.step > 0:
            raise ValueError(f"bias: wanted one value a token of the prompt, {key_length - 1}; got {prompt}")
        if batch % rows:
            raise ValueError(f"bias: wanted 1 row or one a sequence, {batch} here; got {rows}")
        # Beams and several answers a prompt lie side by side.
        repeats = 1 if rows == 1 else batch // rows
        fitted = torch.nn.functional.pad(self._bias[:, :key_length], (0, max(0, key_length - prompt)))
        self._fitted = {self._bias.device: fitted[0] if rows == 1 else fitted.repeat_interleave(repeats, 0)}


def _distinct(heads: Tensor) -> list[int]:
    """For each layer of ``heads``, the first layer whose row is the same."""
    rows = [tuple(row) for row in heads.tolist()]
    return [rows.index(row) for row in rows]


def _range_of_visible(view: View) -> tuple[Tensor, Tensor]:
    """Least and greatest saliency among the keys that each query sees, each [1 or b, 1, 1 or lq]."""
    bias = view.bias if view.bias.dim() == 2 else view.bias[None]
    if view.is_causal:
        queries = view.query.shape[2]
        low, high = (-(-bias).cummax(-1).values)[:, -queries:], bias.cummax(-1).values[:, -queries:]
    elif view.key_lengths is not None:
        hidden = torch.arange(bias.shape[1], device=bias.device) >= view.key_lengths[:, None]
        low = bias.masked_fill(hidden, torch.inf).amin(-1, keepdim=True)
        high = bias.masked_fill(hidden, -torch.inf).amax(-1, keepdim=True)
    else:
        low, high = bias.amin(-1, keepdim=True), bias.amax(-1, keepdim=True)
    return low[:, None], high[:, None]
