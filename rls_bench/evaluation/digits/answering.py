"""Asking a reader about grids that it has read, with its attention steered by the saliency model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from rls_bench.attention import steered_attention
from rls_bench.backends.interface import AttentionStats
from rls_bench.evaluation.digits.grids import Grids, patches
from rls_bench.evaluation.digits.presence import HuePresence, cell_saliency
from rls_bench.evaluation.digits.reader import Attend, GridReader, KeyValue
from rls_bench.steering import (
    Gate,
    disagreement,
    expected_saliency,
    mass_from_lse,
    normalize_saliency,
    oracle,
    output_doubt,
    output_entropy,
    shuffled,
    uniform,
)
from rls_bench.steering.saliency import Normalizer

Control = Literal["real", "shuffled", "uniform", "oracle"]

# Any strength but 0 reads the unsteered attention off the statistics of a call; see steering.gate and steering.mass.
_PROBE_STRENGTH = 1.0


@dataclass(frozen=True)
class Steering:
    """One way to steer: λ, bool [LAYERS, HEADS], and what is done to the saliency and by which gate."""

    strength: float
    heads: Tensor
    normalizer: Normalizer = "zscore"
    control: Control = "real"
    gate: Gate | None = None


@dataclass(frozen=True)
class Answers:
    """Which answers were right, bool [N], and how far λ was turned up, float [N] in [0, 1] (all 1 without a gate)."""

    correct: Tensor
    openness: Tensor


@dataclass
class Scene:
    """Grids that a reader has read once, one question each, with the saliency [N, CELLS] of what is asked for."""

    reader: GridReader
    grids: Grids
    cache: list[KeyValue]
    saliency: Tensor
    backend: str = "auto"
    seed: int = 0

    @classmethod
    def read(
        cls, reader: GridReader, presence: HuePresence, grids: Grids, backend: str = "auto", seed: int = 0
    ) -> Scene:
        """Let both models see ``grids``; ``seed`` draws the shuffled control."""
        with torch.no_grad():
            cache = reader.prefill(patches(grids.pixels))
        return cls(reader, grids, cache, cell_saliency(presence, grids.pixels, grids.hues[:, 0]), backend, seed)

    @cached_property
    def span(self) -> Tensor:
        """The cell asked for, bool [N, CELLS]."""
        return torch.zeros_like(self.saliency, dtype=torch.bool).scatter_(1, self.grids.cells, True)

    def bias(self, normalizer: Normalizer = "zscore", control: Control = "real") -> Tensor:
        """Bias of the keys, [N, CELLS + 1]: normalised saliency, and 0 for the question itself."""
        bias = normalize_saliency(self.saliency, normalizer)
        if control == "shuffled":
            bias = shuffled(bias, torch.Generator().manual_seed(self.seed))
        elif control == "uniform":
            bias = uniform(bias)
        elif control == "oracle":
            bias = oracle(bias, self.span)
        return pad(bias, (0, 1))

    def answer(self, steering: Steering) -> Answers:
        """Ask every question under ``steering``."""
        bias = self.bias(steering.normalizer, steering.control)
        openness = torch.ones(len(bias))
        if steering.gate is not None:
            openness = steering.gate.openness(self.signal(steering.gate, steering.heads, bias))
        strengths = steering.strength * steering.heads.float()

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            strength = openness[:, None] * strengths[layer]
            return steered_attention(query, key, value, bias, strength, backend=self.backend)

        return Answers(self._logits(attend).argmax(-1) == self.grids.answers[:, 0], openness)

    def signal(self, gate: Gate, heads: Tensor, bias: Tensor) -> Tensor:
        """What ``gate`` reads of each question, [N]: unsteered, and for disagreement the mean over ``heads``."""
        if gate.signal == "disagreement":
            return disagreement(self._expected(bias)[:, heads].mean(1, keepdim=True), bias)[:, 0]
        logits = self._logits(self._unsteered)
        return output_entropy(logits) if gate.signal == "entropy" else output_doubt(logits)

    def span_mass(self) -> Tensor:
        """Mean attention of each head on the cell asked for, unsteered: [LAYERS, HEADS]."""
        stats = self._probe(pad(self.span.float(), (0, 1)))
        return torch.stack([mass_from_lse(s.lse, s.lse_steered, _PROBE_STRENGTH).mean((0, 2)) for s in stats])

    def _expected(self, bias: Tensor) -> Tensor:
        """Saliency that each head sees unsteered, [N, LAYERS, HEADS]."""
        return torch.stack([expected_saliency(s, _PROBE_STRENGTH)[..., 0] for s in self._probe(bias)], 1)

    def _probe(self, bias: Tensor) -> list[AttentionStats]:
        """Statistics of every layer, of a pass whose attention is left unsteered.

        They come from whichever backend has them, since the scene's need not: gates and masses are no part of what is
        compared.
        """
        collected: list[AttentionStats] = []

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            _, stats = steered_attention(query, key, value, bias, _PROBE_STRENGTH, return_stats=True)
            collected.append(stats)
            return self._unsteered(layer, query, key, value)

        self._logits(attend)
        return collected

    def _unsteered(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return steered_attention(query, key, value, query.new_zeros(key.shape[2]), 0.0, backend=self.backend)

    def _logits(self, attend: Attend) -> Tensor:
        """Logits of the ten digits, [N, 10]."""
        with torch.no_grad():
            return self.reader.answer(self.cache, self.grids.hues, attend)[:, 0]
