"""See the attention of a transformers vision tower, whatever attention it was loaded with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rls_bench.errors import MissingPackage

try:
    from transformers import AttentionInterface
except ImportError as error:
    raise MissingPackage("a vision tower needs transformers; run: pip install 'rls-bench[models]'") from error

NAME = "rls_recorded"
# Attention modules that are being watched, by id, and where their matrices go.
_WATCHED: dict[int, list[Tensor]] = {}


@contextmanager
def recorded_attention(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the attention of each layer of ``tower``, mean over heads, [queries, keys], in the order of its calls.

    Pictures come one at a time. Raises ValueError where the tower's attention isn't transformers'.
    """
    layers: list[Any] = [
        module for module in tower.modules() if hasattr(module, "scaling") and hasattr(module, "config")
    ]
    if not layers:
        raise ValueError(f"tower: wanted transformers attention layers, {type(tower).__name__} has none")
    AttentionInterface.register(NAME, _attention)
    configs = {id(layer.config): layer.config for layer in layers}
    before = {key: config._attn_implementation for key, config in configs.items()}
    matrices: list[Tensor] = []
    try:
        for layer in layers:
            _WATCHED[id(layer)] = matrices
        for config in configs.values():
            config._attn_implementation = NAME
        yield matrices
    finally:
        for layer in layers:
            _WATCHED.pop(id(layer), None)
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Plain attention, one head at a time so that one matrix is held: [1, H, N, D] to [1, N, H, D]."""
    if query.shape[0] != 1:
        raise ValueError(f"pictures: wanted one at a time to record their attention, got {query.shape[0]}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = query.new_empty(*query.shape[:3], value.shape[3])
    total = torch.zeros(query.shape[2], key.shape[2], dtype=torch.float32, device=query.device)
    for head in range(query.shape[1]):
        scores = query[0, head].float() @ key[0, head].float().mT * scale
        if attention_mask is not None:
            scores = scores + attention_mask[0, 0]
        weights = scores.softmax(dim=-1)
        output[0, head] = weights.to(value.dtype) @ value[0, head]
        total += weights
    _WATCHED[id(module)].append(total / query.shape[1])
    return output.transpose(1, 2).contiguous(), None
