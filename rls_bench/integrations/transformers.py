"""Steer a transformers model: ``with steer(model, bias=…, strength=…): model.generate(…)``.

Works for decoder models whose attention goes through transformers' attention interface (Llama, SmolLM2, Qwen2 and the
language part of Qwen2-VL among them), with a cache, padding, grouped heads and batches. A layer where λ is 0 runs the
model's own attention, so strength 0 gives the model's own logits, bit for bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rls_bench.backends import registry
from rls_bench.errors import BackendUnavailable, MissingPackage
from rls_bench.integrations.control import Control
from rls_bench.integrations.visibility import Visibility, read_mask
from rls_bench.steering.gate import Gate, output_doubt, output_entropy
from rls_bench.steering.schedule import MassSchedule, Schedule

try:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
except ImportError as error:
    raise MissingPackage("steering a model needs transformers; run: pip install 'rls-bench[models]'") from error

# The attention implementation's name among transformers' own.
NAME = "rls_steered"
# What a model loaded with NAME runs where nothing is steered.
_DEFAULT_BASE = "sdpa"
# Arguments that change the scores in ways that a steered layer would drop.
_SCORE_OPTIONS = ("softcap", "s_aux", "position_bias")


def register() -> None:
    """Tell transformers of ``attn_implementation="rls_steered"``, which is sdpa outside of ``steer``; idempotent."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)


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
) -> Iterator[Control]:
    """Steer the decoder layers of ``model`` while the context is open; leaving it restores the model whole.

    Args:
        model: a transformers decoder with attn_implementation "sdpa", "eager" or "rls_steered", in eval mode or without
            attention dropout.
        bias: saliency of the prompt's tokens, [P] or [B, P] laid out as input_ids (padding included), finite. Keys
            after them get 0. A batch that generate() multiplies (beams, several answers) multiplies it, too.
        strength: λ, multiplied by all that follow.
        heads: which heads to steer, [layers, query heads], bool or weights; default all.
        gate: when to steer.
        schedule: how λ changes over layers and steps, or from the span's mass (bias must hold 0 and 1 alone then).
        backend: a registered name, which runs or raises, or "auto". Gates on disagreement and mass schedules need one
            with row statistics.

    Yields the Control; its ``share_steered`` says how far the gate stood open.

    Raises ValueError or TypeError where an argument doesn't fit the model, BackendError where the backend can't run.
    """
    layers = _attention_layers(model)
    control = _control(model, layers, bias, strength, heads, gate, schedule, backend)
    register()
    configs = {id(layer.config): layer.config for layer in layers}
    before = {key: config._attn_implementation for key, config in configs.items()}
    context = _Context(control)
    hook = _answer_hook(model, control, gate)
    try:
        for layer in layers:
            base = _base_attention(layer, before[id(layer.config)])
            _STEERED[id(layer)] = _Layer(layer.layer_idx, base, context)
        for key, config in configs.items():
            _MASK_BASES[key] = _base_name(before[key])
            config._attn_implementation = NAME
        yield control
    finally:
        control.end()
        if hook is not None:
            hook.remove()
        for layer in layers:
            _STEERED.pop(id(layer), None)
        for key, config in configs.items():
            _MASK_BASES.pop(key, None)
            config._attn_implementation = before[key]


@dataclass
class _Context:
    """What the layers of one steered model share; the mask is read once a pass."""

    control: Control
    mask: Tensor | None = None
    visibility: Visibility | None = field(default=None)


@dataclass(frozen=True)
class _Layer:
    index: int
    base: Callable[..., Any]
    context: _Context


# While a context is open: its attention modules, and for each of their configs whose masks they take; both by id.
_STEERED: dict[int, _Layer] = {}
_MASK_BASES: dict[int, str] = {}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls for each attention layer: query [B, Hq, Lq, D] to ([B, Lq, Hq, Dv], no weights)."""
    layer = _STEERED.get(id(module))
    if layer is None:
        base = ALL_ATTENTION_FUNCTIONS[_DEFAULT_BASE]
        return base(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    context, control = layer.context, layer.context.control
    if layer.index == 0:
        control.begin(query.shape[0], query.shape[2], key.shape[2])
        context.visibility = None
    if not control.steers(layer.index):
        return layer.base(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    if context.visibility is None or context.mask is not attention_mask:
        _refuse_what_steering_would_drop(dropout, options)
        context.mask, context.visibility = attention_mask, read_mask(attention_mask, query, key)
    output = control.attend(layer.index, query, key, value, context.visibility, scaling)
    return output.transpose(1, 2).contiguous(), None


def _refuse_what_steering_would_drop(dropout: float, options: dict[str, Any]) -> None:
    if dropout:
        raise ValueError(f"attention dropout: wanted 0 to steer, got {dropout}; call model.eval() first")
    for name in _SCORE_OPTIONS:
        if options.get(name) is not None:
            raise ValueError(f"{name}: this model's attention changes its scores by it, which steering would drop")


def _mask(*, config: Any = None, **arguments: Any) -> Tensor | None:
    """The mask that the model's own attention would take, since layers that aren't steered run it."""
    base = _MASK_BASES.get(id(config), _DEFAULT_BASE)
    return ALL_MASK_ATTENTION_FUNCTIONS[base](config=config, **arguments)


def _attention_layers(model: nn.Module) -> list[Any]:
    """The causal self-attention modules of ``model`` in order of depth; vision towers have none."""
    found: list[Any] = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and getattr(module, "is_causal", False)
        and hasattr(module, "num_key_value_groups")
    ]
    found.sort(key=lambda module: module.layer_idx)
    if not found or [module.layer_idx for module in found] != list(range(len(found))):
        raise ValueError(
            f"model: wanted a transformers decoder with attention in layers 0, 1, …; {type(model).__name__} has "
            f"{[module.layer_idx for module in found] or 'none'}"
        )
    if any(id(module) in _STEERED for module in found):
        raise ValueError("model: it is steered already; leave the first context before entering another")
    return found


def _control(
    model: nn.Module,
    layers: list[Any],
    bias: Tensor,
    strength: float,
    heads: Tensor | None,
    gate: Gate | None,
    schedule: Schedule | MassSchedule | None,
    backend: str,
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
        heads = torch.ones(shape)
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
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def _base_name(implementation: str | None) -> str:
    name = _DEFAULT_BASE if implementation == NAME else implementation
    if name not in ("sdpa", "eager"):
        raise ValueError(f"model: wanted attn_implementation 'sdpa', 'eager' or '{NAME}', got {implementation!r}")
    return name


def _base_attention(layer: nn.Module, implementation: str | None) -> Callable[..., Any]:
    if _base_name(implementation) == "eager":
        # Each model's file has an eager attention of its own, which the interface doesn't list.
        return sys.modules[type(layer).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS["sdpa"]


def _answer_hook(model: Any, control: Control, gate: Gate | None) -> Any:
    """Let a gate on the answer see the logits of each step's last token."""
    if gate is None or gate.signal == "disagreement":
        return None
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError(f"gate: {gate.signal} wants a model with a language head, got {type(model).__name__}")
    read = output_entropy if gate.signal == "entropy" else output_doubt
    return head.register_forward_hook(lambda module, arguments, logits: control.see_answer(read(logits[:, -1])))
