"""How a model's attention layers are steered while a context is open: λ of each layer, head, query and step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rls_bench import dispatch
from rls_bench.attention import bind, steered_attention
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.inputs import Inputs
from rls_bench.integrations.visibility import View, Visibility
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
        self._meter = GateMeter()
        self._signals: list[Tensor] = []
        self._openness: Tensor | None = None
        self._bound: dict[tuple[Any, ...], tuple[Backend, Inputs]] = {}

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
        self._bound.clear()
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

    def steers(self, layer: int) -> bool:
        """Whether λ may be other than 0 in ``layer`` at this step."""
        return self._steered[layer] and self._numbers[layer] != 0

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, visibility: Visibility, scale: float | None
    ) -> Tensor:
        """The layer's steered output [B, Hq, Lq, Dv]."""
        number, alike = self._numbers[layer], self._alike[layer]
        if self._plain and alike is not None and visibility.valid is None and visibility.key_length == key.shape[2]:
            return self._attend_alike(number * alike, query, key, value, visibility.is_causal, scale)
        signals: list[Tensor] = []

        def call(view: View) -> Tensor:
            strength = self._strength_at(view, layer, number, scale, signals)
            return self._operator(view, strength, scale)

        output = visibility.attend(call, query, key, value, self._fitted_to(query))
        if signals:
            self._signals.append(torch.cat(signals))
        return output

    def _strength_at(
        self, view: View, layer: int, number: float, scale: float | None, signals: list[Tensor]
    ) -> float | Tensor:
        """λ of one call: a number, [Hq], [b, Hq] or [b, Hq, lq]."""
        weights = self._heads[layer]
        if self._plain:
            alike = self._alike[layer]
            return number * weights if alike is None else number * alike
        strength = (number * weights)[None, :, None]
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

    def _attend_alike(
        self, strength: float, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None
    ) -> Tensor:
        """One λ for all heads, no padding. Layers of a pass differ in query, key and value alone then, and at a token a
        step, checking and choosing anew in each of them would cost more than steering does."""
        same = (strength, query.shape, key.shape, query.device)
        if same not in self._bound:
            bias = self._fitted_to(query)
            inputs = bind(
                query, key, value, bias, strength, is_causal=is_causal, scale=scale, enable_gqa=True, check_values=False
            )
            self._bound[same] = registry.get(dispatch.resolve(self._backend, inputs.problem)), inputs
        backend, like = self._bound[same]
        return backend.prepare(Inputs(like.problem, query, key, value, like.bias, like.strength, like.scale))()

    def _fitted_to(self, query: Tensor) -> Tensor:
        """The bias of this pass on query's device, [Lk] where the whole batch shares it."""
        fitted = self._fitted[0] if self._fitted.shape[0] == 1 else self._fitted
        return fitted.to(query.device)

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
        self._fitted = fitted.repeat_interleave(repeats, 0)


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
