"""What a transformers model was called with: its arguments by name, where its tokens stand by them, and by whom."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import Cache, UnbatchedClassifierFreeGuidanceLogitsProcessor

from rls_bench.integrations.passes import Arguments

_CACHE_NAMES = ("past_key_values", "past_key_value", "layer_past")


def named(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    if not arguments:
        return options
    return {**dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False)), **options}


def read(body: nn.Module, arguments: Mapping[str, Any], logits_to_keep: Any = 0) -> tuple[int, int, Arguments]:
    """Batch, queries and where they stand, by the ``arguments`` of a model's body.

    ``logits_to_keep`` is what the model around it was asked for: a number of last tokens, or which.
    """
    tokens = arguments.get("input_ids")
    if tokens is None:
        tokens = arguments.get("inputs_embeds")
    if tokens is None or tokens.dim() < 2:
        raise ValueError(
            f"model: wanted input_ids or inputs_embeds [batch, length] to steer {type(body).__name__}; "
            f"got {'none' if tokens is None else tuple(tokens.shape)}"
        )
    batch, query_length = tokens.shape[:2]
    cache = next((arguments[name] for name in _CACHE_NAMES if arguments.get(name) is not None), None)
    ahead = min(max(0, logits_to_keep - 1), query_length - 1) if isinstance(logits_to_keep, int) else 0
    if cache is None:
        return batch, query_length, Arguments(ahead=ahead, tokens=tokens, training=body.training)
    if not isinstance(cache, Cache):
        raise TypeError(f"past_key_values: wanted a transformers Cache to steer; got {type(cache).__name__}")
    offsets = {
        layer: int(cache.get_mask_sizes(query_length, layer)[1])
        for layer, slides in enumerate(cache.is_sliding)
        if slides
    }
    return batch, query_length, Arguments(int(cache.get_seq_length()), cache, offsets, ahead, tokens)


def asked_by_guidance() -> bool:
    """Whether classifier-free guidance makes this pass, over the prompt that it guides away from.

    Nothing in the pass's arguments tells the two prompts apart, so the callers are asked.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _GUIDANCE:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


_GUIDANCE = UnbatchedClassifierFreeGuidanceLogitsProcessor.get_unconditional_logits.__code__
