"""Where a transformers model attends, and whether its attention can be steered there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

# What an attention module holds that changes its scores in ways which a steered layer would drop.
_CHANGE_SCORES = ("sinks", "attn_logit_softcapping", "softcap", "indexer", "relative_attention_bias")
# Arguments of an attention function that do the same.
SCORE_OPTIONS = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")


def attention_layers(model: nn.Module) -> list[Any]:
    """The self-attention modules of ``model``'s language part, in order of depth.

    Raises ValueError where the model's attention isn't one that can be steered.
    """
    name = type(model).__name__
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"model: wanted a decoder or an encoder alone; {name} has both, and prompts of two kinds")
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    modules: list[Any] = [module for module in model.modules() if isinstance(getattr(module, "layer_idx", None), int)]
    attending = [module for module in modules if _asks_the_interface(module)]
    found = [module for module in attending if module.config is text] or attending
    found.sort(key=lambda module: module.layer_idx)
    if not found or [module.layer_idx for module in found] != list(range(len(found))):
        raise ValueError(
            "model: wanted a transformers model that attends, by transformers' attention interface, in layers 0, 1, …; "
            f"{name} does in {[module.layer_idx for module in found] or 'none'}"
        )
    if getattr(text, "num_kv_shared_layers", 0):
        raise ValueError(f"model: wanted layers with keys of their own; {name} shares them between layers")
    return found


def refuse_unsteerable(layer: Any) -> None:
    """Raise ValueError where steering would drop what a layer does to its scores."""
    for name in _CHANGE_SCORES:
        if getattr(layer, name, None) is not None:
            raise ValueError(
                f"model: {type(layer).__name__} of layer {layer.layer_idx} changes its scores by {name}, which "
                "steering would drop; steer only layers without it, by heads="
            )


def body(model: nn.Module, layers: list[Any]) -> nn.Module:
    """The smallest model within ``model`` that runs all of ``layers``: what is called with tokens, mask and cache."""
    wanted = set(map(id, layers))
    within = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    holding = [part for part in within if wanted <= {id(module) for module in part.modules()}]
    if not holding:
        raise ValueError(
            f"model: wanted a transformers model; {type(model).__name__} holds none with all of its layers"
        )
    return holding[-1]


def head(model: nn.Module) -> nn.Module | None:
    """What makes logits, or None."""
    find: Any = getattr(model, "get_output_embeddings", None)
    return None if find is None else find()


def eager_attention(layer: nn.Module) -> Callable[..., Any]:
    """The layer's eager attention: each model's file has its own, which the interface doesn't list."""
    try:
        return sys.modules[type(layer).__module__].eager_attention_forward
    except AttributeError:
        raise ValueError(
            f"model: {type(layer).__name__} has no eager attention of its own; load the model with "
            "attn_implementation='sdpa' to steer it"
        ) from None


def _asks_the_interface(module: nn.Module) -> bool:
    """Whether ``module`` is self-attention whose kernel its config names."""
    is_cross = "Cross" in type(module).__name__ or getattr(module, "is_cross_attention", False)
    if is_cross or not hasattr(module, "config"):
        return False
    code = inspect.unwrap(type(module).forward).__code__
    return "ALL_ATTENTION_FUNCTIONS" in code.co_names
