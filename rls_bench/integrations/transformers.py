"""Steer a transformers model: ``with steer(model, bias=…, strength=…): model.generate(…)``.

Works for models whose attention goes through transformers' attention interface, whatever their masks: causal, windowed,
both ways, packed, with padding, through any cache. Where a model can't be steered it is refused when the context opens.
A layer where λ is 0 runs the model's own attention, so strength 0 gives the model's own logits, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rls_bench.backends import registry
from rls_bench.errors import BackendUnavailable, MissingPackage
from rls_bench.integrations.control import Control
from rls_bench.steering.gate import Gate
from rls_bench.steering.schedule import MassSchedule, Schedule

try:
    from transformers import AttentionInterface, AttentionMaskInterface

    from rls_bench.integrations import anatomy, wiring
except ImportError as error:
    raise MissingPackage("steering a model needs transformers; run: pip install 'rls-bench[models]'") from error

NAME = wiring.NAME


def register() -> None:
    """Tell transformers of ``attn_implementation="rls_steered"``, which is sdpa outside of ``steer``; idempotent."""
    AttentionInterface.register(NAME, wiring.attention)
    AttentionMaskInterface.register(NAME, wiring.mask)


@contextmanager
def steer(
    model: nn.Module,
    *,
    bias: Tensor,
    strength: float = 1.0,
    heads: Tensor | None = None,
    gate: Gate | None = None,
    schedule: Schedule | MassSchedule | None = None,
    backend: str = "auto",
    pad_bias: bool = False,
    stats: bool = False,
) -> Iterator[Control]:
    """Steer the attention layers of ``model`` while the context is open; leaving it restores the model whole.

    It reaches calls of the thread that opened it and, opened by the main thread, of threads started since (as a
    server's). Calls of other threads stay unsteered: each may open a context of its own on the same model, or enter
    ``control.joined()``. Under classifier-free guidance, the prompt that is guided away from is not steered.

    Args:
        model: a transformers model with attn_implementation "sdpa", "eager" or "rls_steered", in eval mode or without
            attention dropout.
        bias: saliency of the prompt's tokens, [P] or [B, P] laid out as input_ids (padding included), finite. Keys
            after them get 0. A batch that generate() multiplies (beams, several answers) multiplies it, too.
        strength: λ, multiplied by all that follow.
        heads: which heads to steer, [layers, query heads], bool or weights; default all.
        gate: when to steer.
        schedule: how λ changes over layers and steps, or from the span's mass (bias must hold 0 and 1 alone then).
        backend: a registered name, which runs or raises, or "auto". Gates on disagreement and mass schedules need one
            with row statistics.
        pad_bias: let prompts be longer than ``bias``; their tokens after it get 0. Else that is an error.
        stats: record entropy, KL and the span's mass of each steered layer, head and pass in ``control.stats``. The
            backend must have row statistics.

    Yields the Control: ``share_steered`` says how far the gate stood open, ``stats`` what attention did.

    Raises ValueError or TypeError where an argument doesn't fit the model, or the model can't be steered, and
    BackendError where the backend can't run. A pass that shows what was not foreseen raises ValueError, too.
    """
    layers = anatomy.attention_layers(model)
    control = _control(model, layers, bias, strength, heads, gate, schedule, backend, pad_bias, stats)
    for layer in layers:
        if control.steered_layers[layer.layer_idx]:
            anatomy.refuse_unsteerable(layer)
    register()
    wired = wiring.wire(model, layers)
    try:
        if wired.steering_here() is not None:
            raise ValueError("model: it is steered already; leave the first context before entering another")
        with wired.opened(control):
            yield control
    finally:
        wired.release()


def _control(
    model: nn.Module,
    layers: list[Any],
    bias: Tensor,
    strength: float,
    heads: Tensor | None,
    gate: Gate | None,
    schedule: Schedule | MassSchedule | None,
    backend: str,
    pad_bias: bool,
    stats: bool,
) -> Control:
    device = next(model.parameters()).device
    for name, given, wanted in (("bias", bias, Tensor), ("heads", heads, Tensor), ("gate", gate, Gate)):
        if not isinstance(given, wanted) and (given is not None or name == "bias"):
            raise TypeError(f"{name}: wanted a {wanted.__name__}; got {type(given).__name__}")
    if schedule is not None and not isinstance(schedule, MassSchedule) and not callable(schedule):
        raise TypeError(
            f"schedule: wanted what rls_bench.steering.schedule makes, such as constant(0.5); got {schedule!r}"
        )
    if isinstance(strength, bool) or not (isinstance(strength, (int, float)) or _is_number(strength)):
        raise TypeError(f"strength: wanted one number (heads= weighs it for each head); got {strength!r}")
    if gate is not None and gate.signal != "disagreement" and anatomy.head(model) is None:
        raise ValueError(f"gate: {gate.signal} wants a model with a language head, got {type(model).__name__}")
    strength = float(strength)
    if bias.dim() not in (1, 2):
        raise ValueError(f"bias: wanted [prompt] or [batch, prompt], got {tuple(bias.shape)}")
    if not bool(bias.isfinite().all()):
        raise ValueError("bias: wanted finite values; normalize_saliency turns what isn't into 0")
    if isinstance(schedule, MassSchedule) and not bool(((bias == 0) | (bias == 1)).all()):
        raise ValueError("bias: a mass schedule wants the span's indicator, 0 and 1 alone")
    if not math.isfinite(strength):
        raise ValueError(f"strength: wanted a finite number, got {strength}")
    shape = (len(layers), layers[0].config.num_attention_heads)
    if heads is None:
        heads = torch.ones(shape, dtype=torch.float32, device="cpu")
    if tuple(heads.shape) != shape:
        raise ValueError(f"heads: wanted [layers, query heads] {list(shape)}, got {list(heads.shape)}")
    if not bool(heads.isfinite().all()):
        raise ValueError("heads: wanted finite weights")
    if backend != "auto" and not (available := registry.get(backend).available()):
        raise BackendUnavailable(f"backend {backend!r}: {available.reason}")
    return Control(
        bias.to(device, torch.float32).reshape(-1, bias.shape[-1]),
        strength,
        heads.to(device, torch.float32),
        gate,
        schedule,
        backend,
        pad_bias,
        stats,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
