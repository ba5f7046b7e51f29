"""SmolLM2 under a highlight: whom it believes, and how well it still reads plain text."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from rls_bench.evaluation.conflict.items import SENTENCES, Item, Span, Tokens, encode, tokenize
from rls_bench.evaluation.texts import read
from rls_bench.integrations.transformers import steer
from rls_bench.steering import layer_mask

# Of each plain text: the tokens that are highlighted, and where its reading ends.
_HIGHLIGHT = (20, 40)
_TEXT_TOKENS = 320
TEXTS = ("alice", "moby_dick", "pride_and_prejudice")


class Conversations:
    """Conversations that the model has read once; then it is asked, again and again, under one highlight or another.

    The question is steered and the conversation, already in the cache, is not: what a chat does whose user highlights
    a sentence after the fact. Each question costs its own tokens alone.
    """

    def __init__(self, items: list[Item], model: Any, tokenizer: Any, backend: str = "auto") -> None:
        self._model, self._backend = model, backend
        self._read = [(tokens, self._cache(tokens)) for tokens in tokenize(items, tokenizer)]

    def believed(self, span: Span, strength: float, layers: range) -> Tensor:
        """Whether the highlighted speaker's answer is likelier than the other's, bool [items], with λ on ``span``."""
        return torch.cat([self._answer(*read, span, strength, layers) for read in self._read])

    @torch.inference_mode()
    def _cache(self, tokens: Tokens) -> DynamicCache:
        cache = DynamicCache()
        self._model.model(tokens.conversation, past_key_values=cache)
        return cache

    @torch.inference_mode()
    def _answer(self, tokens: Tokens, cache: DynamicCache, span: Span, strength: float, layers: range) -> Tensor:
        bias = (tokens.sentence == SENTENCES.index(span)).float()
        heads = layer_mask(*_shape(self._model), layers)
        with steer(self._model, bias=bias, strength=strength, heads=heads, backend=self._backend):
            # A copy, since the model appends the question to the cache that it is given.
            logits = self._model(tokens.tail, past_key_values=deepcopy(cache), logits_to_keep=1).logits[:, -1]
        highlighted, other = logits.gather(1, tokens.answers).unbind(1)
        return highlighted > other


@torch.inference_mode()
def perplexity(model: Any, tokenizer: Any, strength: float, layers: range, backend: str = "auto") -> float:
    """Perplexity of the plain TEXTS after a highlight of twenty tokens near their beginning, with λ on it."""
    losses = []
    start, end = _HIGHLIGHT
    for name in TEXTS:
        ids = torch.tensor([encode(read(name), tokenizer)[:_TEXT_TOKENS]])
        bias = torch.zeros(ids.shape[1])
        bias[start:end] = 1
        heads = layer_mask(*_shape(model), layers)
        with steer(model, bias=bias, strength=strength, heads=heads, backend=backend):
            logits = model(ids, use_cache=False).logits[0]
        losses.append(cross_entropy(logits[end - 1 : -1], ids[0, end:]))
    return math.exp(float(torch.stack(losses).mean()))


def _shape(model: Any) -> tuple[int, int]:
    return model.config.num_hidden_layers, model.config.num_attention_heads
