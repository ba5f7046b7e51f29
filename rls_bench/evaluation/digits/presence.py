"""The vision model that says where to look: a small CNN trained on one thing, whether a grid holds a hue."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rls_bench.evaluation.digits.grids import CELL_PIXELS, HUES, SIDE

_CHUNK = 64


class HuePresence(nn.Module):
    """Logits that each hue is somewhere in a grid; it is never told where, nor which digit."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(48, 24, 3, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, HUES, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, 32, 32] to [B, HUES]: a soft maximum over places, so that one cell is enough."""
        places = self.layers(pixels).flatten(2)
        return places.logsumexp(2) - math.log(places.shape[2])


def cell_saliency(model: HuePresence, pixels: Tensor, hues: Tensor) -> Tensor:
    """Gradient × input of the logit of ``hues`` [B]: what speaks for the hue, summed over each cell, [B, CELLS] >= 0.

    Pixels that speak against it are left out: under noise they cancel the others and hide the place.
    """
    # In chunks whose activations stay in the cache: several times faster than all at once.
    chunks = zip(pixels.split(_CHUNK), hues.split(_CHUNK), strict=True)
    return torch.cat([_chunk_saliency(model, *chunk) for chunk in chunks])


def _chunk_saliency(model: HuePresence, pixels: Tensor, hues: Tensor) -> Tensor:
    pixels = pixels.detach().requires_grad_()
    logits = model(pixels).gather(1, hues[:, None])
    (gradient,) = torch.autograd.grad(logits.sum(), pixels)
    relevance = (gradient * pixels.detach()).sum(1).clamp_min(0)
    return relevance.reshape(-1, SIDE, CELL_PIXELS, SIDE, CELL_PIXELS).sum((2, 4)).flatten(1)
