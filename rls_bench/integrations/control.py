"""How a model's attention layers are steered while a context is open: λ of each layer, head, query and step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rls_bench.attention import steered_attention
from rls_bench.backends import registry
from rls_bench.integrations.forward_pass import Pass
from rls_bench.integrations.passes import Arguments, Stream
from rls_bench.integrations.statistics import PassRecord, Statistics
from rls_bench.integrations.visibility import View, Visibility
from rls_bench.policy import dispatch
from rls_bench.problems.binding import bind
from rls_bench.steering.gate import (
    Gate,
    GateMeter,
    disagreement_between,
    expected_saliency,
    output_doubt,
    output_entropy,
)
from rls_bench.steering.mass import PROBE_STRENGTH, mass_from_lse
from rls_bench.steering.schedule import MassSchedule, Position, Schedule, constant
from rls_bench.traffic import counting, recording

# λ of the pass that a gate looks at: any number but 0 tells it the same.
_GATE_PROBE = 1.0
# How a gate reads the model's answer; a gate on disagreement doesn't.
_ANSWERS = {"entropy": output_entropy, "margin": output_doubt}


class Control:
    """One way to steer a model: what to add, where, how strongly and when.

    ``bias`` is float32 [1 or B, P] over the prompt's tokens, padding included; keys after them get 0. ``heads`` weighs
    λ, float32 [layers, Hq]. Several threads may run passes under it: what belongs to a pass lies in its ``Pass``.
    """

    def __init__(
        self,
        bias: Tensor,
        strength: float,
        heads: Tensor,
        gate: Gate | None = None,
        schedule: Schedule | MassSchedule | None = None,
        backend: str = "auto",
        pad_bias: bool = False,
        stats: bool = False,
    ) -> None:
        recording.follow_environment()
        self.bias = bias
        self._strength = strength
        self._heads = heads
        self._gate = gate
        self._mass_rule = schedule.rule if isinstance(schedule, MassSchedule) else None
        self._schedule = constant() if schedule is None or isinstance(schedule, MassSchedule) else schedule
        self._backend = backend
        self._pad_bias = pad_bias
        self._is_span = bool(((bias == 0) | (bias == 1)).all())
        # What attention did, pass by pass; None unless it was asked for.
        self.stats = Statistics(len(heads), self._is_span) if stats else None
        self._read_answer = None if gate is None else _ANSWERS.get(gate.signal)
        self._plain = gate is None and self._mass_rule is None
        # Read once: on a GPU, asking a tensor for its values would stall every layer.
        self.steered_layers: list[bool] = heads.any(dim=-1).tolist()
        self._alike = [float(row[0]) if bool((row == row[0]).all()) else None for row in heads]
        self._rows = _distinct(heads)
        self._meter = GateMeter()
        self._lock = threading.Lock()
        self._streams: WeakKeyDictionary[Any, Stream] = WeakKeyDictionary()
        self._own = threading.local()
        # Lets another thread in, while a context is open.
        self.joined: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __reduce__(self) -> tuple[Any, ...]:
        """Raises TypeError: what it knows of passes under way is of one model, in one process."""
        raise TypeError(
            "control: cannot be copied or pickled; a copy of the model comes unsteered: call steer() on it in its place"
        )

    @property
    def share_steered(self) -> float | None:
        """Mean openness of the gate so far: over steered heads and queries, or over sequences and steps where it acts a
        step late. None without a gate, or before the first pass."""
        return self._meter.share

    @property
    def step(self) -> int:
        """The step of this thread's last pass: 0 for the prompt, then as many as tokens were decoded before it."""
        return 0 if self.current is None else self.current.step

    @property
    def current(self) -> Pass | None:
        """This thread's last pass."""
        return getattr(self._own, "current", None)

    @property
    def _signals(self) -> list[Tensor]:
        """What this thread's last pass told the gate, [B] each."""
        return [] if self.current is None else self.current.stream.signals

    def begin(self, batch: int, query_length: int, key_length: int, arguments: Arguments) -> None:
        """A forward pass of this thread begins, and is ``current``; ``key_length`` tokens will have been read by it.

        Raises ValueError where the bias doesn't fit what is read.
        """
        if batch % self.bias.shape[0]:
            raise ValueError(f"bias: wanted 1 row or one a sequence, {batch} here; got {self.bias.shape[0]}")
        stream = self._stream_of(query_length, arguments)
        if counting.active and stream.end is None:
            counting.count_requests(batch)
        stream.read(query_length, arguments, self.bias.shape[1], self._pad_bias)
        steps = stream.steps(query_length)
        begun = Pass(
            self,
            batch,
            query_length,
            arguments.past,
            arguments.offsets,
            stream,
            steps[-1],
            self._strengths_at(steps),
        )
        if self.stats is not None:
            begun.record = PassRecord(begun.step, batch)
        if self._gate is not None and self._gate.waits_a_step:
            begun.openness = self._openness_at(steps, batch, stream)
            self._count(begun.openness)
        self._own.current = begun

    def finish(self, ended: Pass, cache: Any) -> None:
        """A pass has ended; ``cache`` is what holds its tokens now, or None."""
        if ended.signals:
            ended.stream.signals = list(ended.signals.values())
        if self.stats is not None and ended.record is not None:
            self.stats.add(ended.record)
        if cache is not None:
            self._streams[cache] = ended.stream
        ended.let_go()

    def see_answer(self, ended: Pass, logits: Tensor) -> None:
        """What the model answers after a pass, [B, L, V], tells a gate that reads it for the step to come."""
        if self._read_answer is not None:
            ended.stream.signals = [self._read_answer(logits[:, -1])]

    def end(self) -> None:
        """The context is left: let go of the last pass's tensors, which whoever keeps this would keep, too."""
        if self.current is not None:
            self.current.let_go()
        self._own = threading.local()

    def attend(
        self,
        within: Pass,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        visibility: Visibility,
        scale: float | None,
    ) -> Tensor:
        """The layer's steered output [B, Hq, Lq, Dv]."""
        strength = within.strengths[layer]
        if query.shape[1] != self._heads.shape[1]:
            raise ValueError(
                f"heads: wanted layers alike in query heads, {self._heads.shape[1]}; layer {layer} has {query.shape[1]}"
            )

        def call(view: View) -> Tensor:
            recorded = within.record is not None and within.records(view)
            if self._plain and not isinstance(strength, Tensor):
                result = self._attend_plain(within, layer, strength, view, scale, id(visibility), recorded)
                weighed: float | Tensor = self._of_heads(layer, strength) if recorded else 0.0
            else:
                weighed = self._strength_at(within, view, layer, scale)
                result = self._operator(view, weighed, scale, recorded)
            if not recorded:
                return result
            output, stats = result
            seen = None if self._is_span else self._seen_steered(view, weighed, scale)
            within.record.add(layer, view, stats, weighed, seen)  # type: ignore[union-attr]
            return output

        return visibility.attend(call, query, key, value, within.bias(layer, key))

    def _stream_of(self, query_length: int, arguments: Arguments) -> Stream:
        """What the pass goes on with: the sequences of its cache, or of this thread where it has none."""
        if arguments.cache is None:
            stream = getattr(self._own, "uncached", None)
            if stream is None or not stream.grows(query_length, arguments):
                stream = self._own.uncached = Stream()
            return stream
        stream = self._streams.get(arguments.cache)
        if stream is None or arguments.past == 0:
            stream = self._streams[arguments.cache] = Stream()
        return stream

    def _strengths_at(self, steps: range | list[int]) -> list[float | Tensor]:
        """λ of each layer: a number, or [Lq] where it changes with the steps."""
        distinct = sorted(set(steps))
        layers = range(len(self.steered_layers))
        table = [
            [self._strength * self._schedule(Position(layer, len(layers), step)) for step in distinct]
            for layer in layers
        ]
        if len(distinct) == 1:
            return [row[0] for row in table]
        places = torch.tensor([distinct.index(step) for step in steps], device="cpu")
        tensors = [torch.tensor(row, dtype=torch.float32, device="cpu") for row in table]
        return [row[0] if len(set(row)) == 1 else tensor[places] for row, tensor in zip(table, tensors, strict=True)]

    def _openness_at(self, steps: range | list[int], batch: int, stream: Stream) -> Tensor:
        """How far a gate that waits a step stands open, [B]."""
        assert self._gate is not None
        if steps[-1] == 0 or (len(steps) == 1 and not stream.signals):
            return torch.full((batch,), self._gate.initial, dtype=torch.float32, device=self.bias.device)
        if len(steps) > 1:
            raise ValueError(
                "gate: one that waits a step wants a cache, and a token a pass after the prompt; "
                f"got {len(steps)} tokens, as without a cache and in assisted decoding"
            )
        return self._gate.openness(torch.stack(stream.signals).mean(0))

    def _strength_at(self, within: Pass, view: View, layer: int, scale: float | None) -> Tensor:
        """λ of one call where it changes within the pass, or a gate or the span's mass decides it, [b, Hq, lq]."""
        weights, number = self._heads[layer].to(view.query.device), within.strengths[layer]
        if isinstance(number, Tensor):
            number = number.to(weights.device)[view.queries]
        strength = view.of_call(weights[None, :, None] * number)
        if self._mass_rule is not None:
            stats = self._stats(view, PROBE_STRENGTH, scale)
            strength = strength * self._mass_rule(mass_from_lse(stats.lse, stats.lse_steered, PROBE_STRENGTH))
        if self._gate is not None and self._read_answer is None:
            expected = expected_saliency(self._stats(view, _GATE_PROBE, scale), _GATE_PROBE)
            disagreement = disagreement_between(expected, *_range_of_visible(view))[:, weights != 0]
            if not self._gate.lagged:
                openness = torch.zeros_like(expected)
                openness[:, weights != 0] = self._gate.openness(disagreement)
                strength = strength * openness
                if not within.replayed:
                    self._count(openness[:, weights != 0])
            elif view.queries.stop == within.query_length and not within.replayed:
                signal = within.signals.setdefault(layer, expected.new_zeros(within.batch))
                signal[view.rows] = view.of_pass(disagreement)[:, :, -1].mean(-1)
        if within.openness is not None:
            strength = strength * within.openness[view.rows, None, None]
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

    def _attend_plain(
        self, within: Pass, layer: int, number: float, view: View, scale: float | None, sight: int, recorded: bool
    ) -> Any:
        """λ known beforehand. Layers of a pass that see the same keys (``sight``) differ in query, key and value alone
        then, and at a token a step, checking, choosing and preparing anew in each would cost more than steering does.
        """
        query, key, value, bias, alike = view.query, view.key, view.value, view.bias, self._alike[layer]
        tracked = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        place = (sight, view.rows.start, view.queries.start, within.offsets.get(layer, 0))
        shapes = (query.shape, key.shape, value.shape, query.dtype, query.device)
        # A launch reads memory as it was laid out for its first call.
        strides = (query.stride(), key.stride(), value.stride())
        same = (alike is None, *place, *shapes, *strides, scale, tracked, recorded)
        of_strength = (number, self._rows[layer], same)
        call = within.calls.get(of_strength)
        if call is None:
            inputs = within.bound.get(same)
            if inputs is None or alike is not None:
                inputs = within.bound[same] = bind(
                    query,
                    key,
                    value,
                    bias,
                    self._of_heads(layer, number).to(query.device) if alike is None else number * alike,
                    is_causal=view.is_causal,
                    key_lengths=view.key_lengths,
                    scale=scale,
                    enable_gqa=True,
                    return_stats=recorded,
                    # The bias was checked when the context was entered.
                    check_values=False,
                )
            else:
                # Only λ of each head is another one.
                inputs = replace(inputs, strength=self._of_heads(layer, number).to(query.device)[None, :, None])
            backend = registry.get(dispatch.resolve(self._backend, inputs.problem))
            launch = backend.launch(inputs)
            steering = launch.steer(inputs.bias, inputs.strength, launch.see(inputs.key_lengths))
            call = within.calls[of_strength] = launch, steering, inputs.problem
        launch, steering, problem = call
        if counting.active:
            counting.count(problem)
        return launch.run(query, key, value, steering)

    def _seen_steered(self, view: View, strength: float | Tensor, scale: float | None) -> Tensor:
        """E_A'[b] of a call's last query, [b, Hq, 1]: its output where the values are the bias itself."""
        if view.stacked:
            view = view._replace(query=view.query[-1:], key=view.key[-1:], bias=view.bias[-1:])
        query = view.query[:, :, -1:]
        if isinstance(strength, Tensor) and strength.dim() == 3:
            strength = strength[-1:] if view.stacked else strength[:, :, -1:]
            strength = strength.expand(query.shape[:3])
        bias = view.bias if view.bias.dim() == 2 else view.bias[None]
        value = bias[:, None, :, None].expand(*view.key.shape[:3], 1).to(query.dtype)
        only = view._replace(query=query, value=value, is_causal=False)
        return self._operator(only, strength, scale)[..., 0]

    def _of_heads(self, layer: int, number: float) -> Tensor:
        """λ of each head before a gate or a mass has its say, [Hq]."""
        return number * self._heads[layer]

    def _count(self, openness: Tensor) -> None:
        with self._lock:
            self._meter.add(openness)


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
