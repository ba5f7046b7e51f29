"""Attention rollout: where a vision transformer's attention comes from, through all of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rls_bench.integrations.vision.interface import check_image
from rls_bench.integrations.vision.recorder import recorded_attention


def rollout(attention: Sequence[Tensor], reader: Tensor) -> Tensor:
    """What ``reader`` [tokens], shares of the last layer's tokens, takes from each token of the first: [tokens].

    ``reader · Â_L … Â_1`` with ``Â = (A + I) / 2`` for each layer's attention A [tokens, tokens], first to last
    (Abnar & Zuidema, 2020, arXiv 2005.00928).
    """
    share = reader
    for matrix in reversed(attention):
        share = (share + share @ matrix) / 2
    return share


class AttentionRollout:
    """Rollout of a transformers ViT from its class token to the patches.

    ``tower`` takes ``pixel_values`` [1, 3, S, S] with S = ``config.image_size``, and puts one class token first, as
    ViTModel and its kin do. Pictures are resized to that square and normalised by ``mean`` and ``deviation``.
    """

    def __init__(
        self, tower: nn.Module, mean: Sequence[float] = (0.5,) * 3, deviation: Sequence[float] = (0.5,) * 3
    ) -> None:
        self._tower: Any = tower
        self._mean, self._deviation = (
            torch.tensor(each, dtype=torch.float32, device="cpu")[:, None, None] for each in (mean, deviation)
        )

    @torch.no_grad()
    def extract(self, image: Tensor) -> Tensor:
        """[3, rows, columns] to [patches a side, patches a side]."""
        check_image(image)
        config = self._tower.config
        size, side = config.image_size, config.image_size // config.patch_size
        pixels = functional.interpolate(image.cpu()[None], size=(size, size), mode="bilinear", antialias=True)
        pixels = ((pixels - self._mean) / self._deviation).to(self._tower.device, self._tower.dtype)
        with recorded_attention(self._tower) as attention:
            self._tower(pixel_values=pixels)
        tokens = attention[0].shape[0]
        if tokens != side * side + 1:
            raise ValueError(f"tower: wanted a class token and {side} × {side} patches, got {tokens} tokens")
        reader = torch.zeros(tokens, dtype=torch.float32, device=attention[0].device)
        reader[0] = 1
        return rollout(attention, reader)[1:].reshape(side, side).cpu()
