"""The model that is steered: a small causal transformer that reads a grid, then a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from rls_bench.evaluation.digits.grids import CELL_PIXELS, CELLS, HUES

LAYERS = 3
HEADS = 4
WIDTH = 128
HEAD_DIM = WIDTH // HEADS

# attend(layer, query [B, H, Q, D], key [B, H, K, D], value [B, H, K, D]) -> [B, H, Q, D]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class KeyValue(NamedTuple):
    """One layer's cache of the grid: each [B, HEADS, CELLS, HEAD_DIM]."""

    key: Tensor
    value: Tensor


class Block(nn.Module):
    """Pre-norm attention and a feed-forward of four times the width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.projection = nn.Linear(WIDTH, WIDTH, bias=False)
        self.feed_forward_norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of ``hidden`` [B, L, WIDTH], each [B, HEADS, L, HEAD_DIM]."""
        qkv = self.qkv(self.attention_norm(hidden)).unflatten(-1, (3, HEADS, HEAD_DIM))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block: hidden [B, L, WIDTH], attended [B, HEADS, L, HEAD_DIM]."""
        hidden = hidden + self.projection(attended.transpose(1, 2).flatten(2))
        return hidden + self.contract(gelu(self.expand(self.feed_forward_norm(hidden))))


class GridReader(nn.Module):
    """16 patch tokens, one a cell, then the question: one token, the hue, where the digit is read off.

    Patches see the patches before them; the question sees them all and itself. As no patch sees the question, the
    grid is read once (``prefill``) and then asked (``answer``), as a language model decodes over its KV cache.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(3 * CELL_PIXELS**2, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(CELLS, WIDTH))
        self.hue = nn.Embedding(HUES, WIDTH)
        self.blocks: Sequence[Block] = nn.ModuleList(Block() for _ in range(LAYERS))  # type: ignore[assignment]
        self.norm = nn.LayerNorm(WIDTH)
        self.digit = nn.Linear(WIDTH, 10)

    def prefill(self, patches: Tensor) -> list[KeyValue]:
        """The cache of every layer, from patches [B, CELLS, 192]."""
        hidden = self.patch(patches) + self.position
        cache = []
        for layer, block in enumerate(self.blocks):
            query, key, value = block.heads(hidden)
            cache.append(KeyValue(key, value))
            if layer + 1 < LAYERS:
                hidden = block.finish(hidden, scaled_dot_product_attention(query, key, value, is_causal=True))
        return cache

    def answer(self, cache: list[KeyValue], hues: Tensor, attend: Attend) -> Tensor:
        """Logits of the ten digits, [B, Q, 10], for questions ``hues`` [B, Q].

        More than one question a grid needs an ``attend`` that keeps them apart.
        """
        hidden = self.hue(hues)
        for layer, (block, past) in enumerate(zip(self.blocks, cache, strict=True)):
            query, key, value = block.heads(hidden)
            key, value = torch.cat([past.key, key], 2), torch.cat([past.value, value], 2)
            hidden = block.finish(hidden, attend(layer, query, key, value))
        return self.digit(self.norm(hidden))


def attend_apart(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Plain attention where each question sees the grid and itself alone."""
    questions = query.shape[2]
    mask = torch.cat([torch.ones(questions, CELLS, dtype=torch.bool), torch.eye(questions, dtype=torch.bool)], 1)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)
