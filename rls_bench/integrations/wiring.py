"""How a model comes to ask for steering: the name of its attention, and what it was called with in each pass.

While a context is open, the model's config names an attention of ours, and its body tells us of every call. Nothing
else changes, nothing of it goes along where the model is copied or pickled, and whoever isn't steered runs the model's
own attention.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rls_bench.integrations import anatomy, called, reach
from rls_bench.integrations.control import Control
from rls_bench.integrations.forward_pass import Pass
from rls_bench.integrations.reach import Steering

# The attention implementation's name among transformers' own.
NAME = "rls_steered"
# What a model loaded with NAME runs where nothing is steered.
DEFAULT_BASE = "sdpa"


class Unsteered:
    """A pass that nothing steers, though a context is open."""


# The pass that this thread is in, of whichever model.
_PASS: ContextVar[tuple[Wiring, Pass | Unsteered] | None] = ContextVar("rls_bench_pass", default=None)
_LOCK = threading.RLock()


class _Name(str):
    """NAME as a config holds it while a context is open; copies of the config are of the model's own attention."""

    base: str
    wiring: Wiring

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return self.base

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (self.base,)


@dataclass(frozen=True)
class _Layer:
    index: int
    base: Callable[..., Any]
    # Whether its attention is causal where it gets no mask: transformers' eager one never is.
    is_causal: bool


class Wiring:
    """What stands in a model while contexts are open on it; made by ``wire``, shared by all of them."""

    def __init__(self, model: nn.Module, layers: list[Any]) -> None:
        self.model, self.modules = model, layers
        self.body = anatomy.body(model, layers)
        self.head = anatomy.head(model)
        self.open: list[Steering] = []
        self._held = 0
        self._undo: list[Callable[[], Any]] = []
        configs = {id(layer.config): layer.config for layer in layers}
        self._configs = list(configs.values())
        bases = {key: base_name(config._attn_implementation) for key, config in configs.items()}
        self.layers = {id(layer): _layer(layer, bases[id(layer.config)]) for layer in layers}
        self._checkpointed = [
            module
            for module in self.body.modules()
            if isinstance(module, GradientCheckpointingLayer) and any(part in layers for part in module.modules())
        ]
        self._own = threading.local()

    def hold(self) -> None:
        """Someone needs it; the first puts it in place."""
        with _LOCK:
            self._held += 1
            if self._held == 1:
                self._install()

    def release(self) -> None:
        """Whoever held it is done; the last takes it away."""
        with _LOCK:
            self._held -= 1
            if self._held == 0:
                while self._undo:
                    self._undo.pop()()

    @contextmanager
    def opened(self, control: Control) -> Iterator[None]:
        """A context is open, and reaches this thread."""
        steering = Steering(control)
        control.joined = steering.joined
        self.open.append(steering)
        try:
            with steering.joined():
                yield
        finally:
            self.open.remove(steering)
            control.end()

    def steering_here(self) -> Steering | None:
        """The context that steers calls of this thread, or None."""
        return reach.innermost(self.open)

    def begin(self, arguments: dict[str, Any]) -> None:
        """The body is called with ``arguments``, by name."""
        self._own.last = None
        steering = self.steering_here()
        if steering is None:
            return
        if called.asked_by_guidance():
            _PASS.set((self, Unsteered()))
            return
        batch, query_length, told = called.read(self.body, arguments, getattr(self._own, "logits_to_keep", 0))
        steering.control.begin(batch, query_length, told.past + query_length, told)
        assert steering.control.current is not None
        _PASS.set((self, steering.control.current))
        if self.body.training:
            self._carry_passes()

    def finish(self, output: Any) -> None:
        """The body is done; ``output`` is None where it failed."""
        found = _PASS.get()
        if found is None or found[0] is not self:
            return
        _PASS.set(None)
        ended = found[1]
        if isinstance(ended, Unsteered):
            return
        self._own.last = ended
        cache = getattr(output, "past_key_values", None)
        if isinstance(output, tuple) and cache is None:
            cache = next((part for part in output if isinstance(part, Cache)), None)
        ended.control.finish(ended, cache)
        if output is not None and not ended.reached and any(map(ended.steers, range(len(self.modules)))):
            raise RuntimeError(
                f"model: no attention of {type(self.body).__name__} asked for steering in this pass; was its "
                "attn_implementation changed while the context is open?"
            )

    def _install(self) -> None:
        for config in self._configs:
            before = config._attn_implementation
            name = _Name(NAME)
            name.base, name.wiring = base_name(before), self
            config._attn_implementation = name
            self._undo.append(functools.partial(setattr, config, "_attn_implementation", before))
        parts = [*self.modules, self.body, self.model, *([] if self.head is None else [self.head])]
        _WIRED.update({id(part): self for part in parts})
        self._undo += [functools.partial(_WIRED.pop, id(part), None) for part in parts]
        handles = [
            self.body.register_forward_pre_hook(_before_body, with_kwargs=True),
            self.body.register_forward_hook(_after_body, with_kwargs=True, always_call=True),
        ]
        if self.model is not self.body:
            handles += [
                self.model.register_forward_pre_hook(_before_model, with_kwargs=True),
                self.model.register_forward_hook(_after_model, with_kwargs=True, always_call=True),
            ]
        if self.head is not None:
            handles.append(self.head.register_forward_hook(_after_head))
        self._undo += [handle.remove for handle in handles]

    def see_answer(self, logits: Tensor) -> None:
        """The head's logits [B, L, V] after this thread's last pass, if that was steered."""
        last = getattr(self._own, "last", None)
        if last is not None:
            last.control.see_answer(last, logits)

    def expect(self, logits_to_keep: Any) -> None:
        """This thread calls the model, and wants the logits of its last tokens: a number, or which."""
        self._own.logits_to_keep = logits_to_keep

    def _carry_passes(self) -> None:
        """Let gradient checkpointing run a layer again within the pass that it ran in."""
        for module in self._checkpointed:
            checkpoint = getattr(module, _CHECKPOINTING, None)
            if checkpoint is not None and not isinstance(checkpoint, _CarriesPass):
                setattr(module, _CHECKPOINTING, _CarriesPass(checkpoint))
                self._undo.append(functools.partial(_drop_carrier, module))


# Modules of models that contexts are open on, by id: a copy of one is none of them.
_WIRED: dict[int, Wiring] = {}
_CHECKPOINTING = "_gradient_checkpointing_func"


def wire(model: nn.Module, layers: list[Any]) -> Wiring:
    """The wiring of a model's layers, held until its ``release``."""
    with _LOCK:
        wiring = _WIRED.get(id(layers[0])) or Wiring(model, layers)
        wiring.hold()
        return wiring


def attention(
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
    wiring = _WIRED.get(id(module))
    found = _PASS.get()
    if wiring is None:
        base = _own_attention(module)
        return base(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    layer = wiring.layers[id(module)]
    within = found[1] if found is not None and found[0] is wiring else None
    if within is None and wiring.steering_here() is not None:
        raise RuntimeError(
            f"model: layer {layer.index} was called outside of {type(wiring.body).__name__}'s forward, which tells "
            "where its tokens stand; call the whole model to steer it"
        )
    if not isinstance(within, Pass) or not within.steers(layer.index):
        return layer.base(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    within.reached = True
    _refuse_what_steering_would_drop(dropout, options)
    asked = options.get("is_causal")
    is_causal = layer.is_causal and bool(getattr(module, "is_causal", True) if asked is None else asked)
    visibility = within.visibility(attention_mask, is_causal, query, key)
    output = within.control.attend(within, layer.index, query, key, value, visibility, scaling)
    return output.transpose(1, 2).contiguous(), None


def mask(*, config: Any = None, **arguments: Any) -> Tensor | None:
    """The mask that the model's own attention would take, since layers that aren't steered run it."""
    base = getattr(config._attn_implementation, "base", DEFAULT_BASE)
    return ALL_MASK_ATTENTION_FUNCTIONS[base](config=config, **arguments)


def base_name(implementation: str | None) -> str:
    """The model's own attention by the name in its config; raises ValueError for one that can't be steered beside."""
    name = getattr(implementation, "base", DEFAULT_BASE if implementation == NAME else implementation)
    if name not in ("sdpa", "eager"):
        raise ValueError(f"model: wanted attn_implementation 'sdpa', 'eager' or '{NAME}', got {implementation!r}")
    return str(name)


def _layer(module: Any, base: str) -> _Layer:
    attends = anatomy.eager_attention(module) if base == "eager" else ALL_ATTENTION_FUNCTIONS["sdpa"]
    return _Layer(module.layer_idx, attends, base != "eager")


def _own_attention(module: Any) -> Callable[..., Any]:
    """Of a module that no context is open on, but whose config names ours: loaded so, or another of its config."""
    base = getattr(module.config._attn_implementation, "base", DEFAULT_BASE)
    return anatomy.eager_attention(module) if base == "eager" else ALL_ATTENTION_FUNCTIONS["sdpa"]


def _refuse_what_steering_would_drop(dropout: float, options: dict[str, Any]) -> None:
    if dropout:
        raise ValueError(f"attention dropout: wanted 0 to steer, got {dropout}; call model.eval() first")
    for name in anatomy.SCORE_OPTIONS:
        if options.get(name) is not None:
            raise ValueError(f"{name}: this model's attention changes its scores by it, which steering would drop")


class _CarriesPass:
    """A checkpointing function whose second run of a layer is in the pass of the first: in any thread, also after the
    context is left. Copies of the model have the plain function."""

    def __init__(self, checkpoint: Callable[..., Any]) -> None:
        self.checkpoint = checkpoint

    def __call__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        found = _PASS.get()
        if found is not None:
            function = functools.partial(_run_within, found, function)
        return self.checkpoint(function, *arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self.checkpoint,)


def _run_within(
    found: tuple[Wiring, Pass | Unsteered], function: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    outer = _PASS.get()
    if outer is found:
        return function(*arguments, **options)
    wiring, within = found
    if isinstance(within, Pass):
        within.replayed = True
    wiring.hold()
    _PASS.set(found)
    try:
        return function(*arguments, **options)
    finally:
        _PASS.set(outer)
        wiring.release()
        if isinstance(within, Pass):
            within.let_go()


def _drop_carrier(module: Any) -> None:
    carrier = getattr(module, _CHECKPOINTING)
    if isinstance(carrier, _CarriesPass):
        setattr(module, _CHECKPOINTING, carrier.checkpoint)


# Hooks are functions of this module, so that a copy of a model shares nothing with the original: it finds itself in no
# wiring, and drops them.


def _before_body(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    wiring = _WIRED.get(id(module))
    if wiring is None:
        _unhook(module)
    else:
        wiring.begin(called.named(module, arguments, options))


def _after_body(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
    wiring = _WIRED.get(id(module))
    if wiring is not None:
        wiring.finish(output)


def _before_model(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    wiring = _WIRED.get(id(module))
    if wiring is None:
        _unhook(module)
    else:
        wiring.expect(options.get("logits_to_keep", 0))


def _after_model(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
    wiring = _WIRED.get(id(module))
    if wiring is not None:
        wiring.expect(0)


def _after_head(module: nn.Module, arguments: tuple[Any, ...], logits: Tensor) -> None:
    wiring = _WIRED.get(id(module))
    if wiring is None:
        _unhook(module)
    else:
        wiring.see_answer(logits)


def _unhook(module: nn.Module) -> None:
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in _HOOKS]:
            del hooks[key]
    for table in (module._forward_pre_hooks_with_kwargs, module._forward_hooks_with_kwargs):
        for key in [key for key in table if key not in module._forward_pre_hooks and key not in module._forward_hooks]:
            del table[key]


_HOOKS = (_before_body, _after_body, _before_model, _after_model, _after_head)
