"""What a claim about saliency is held against: the same map shuffled, flattened, or told the answer.

``shuffled`` and ``oracle`` only move a map's own values, so that all three weigh the same at one strength. If shuffled
saliency helps as much as the real one, where to look did not matter; oracle says how much there is to gain.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled(saliency: Tensor, generator: torch.Generator, mask: Tensor | None = None) -> Tensor:
    """``saliency`` [..., L] with the values of the tokens in ``mask`` (bool, broadcasts; default all) in random order.

    Each row is shuffled by itself; tokens outside the mask keep theirs.
    """
    mask = _whole(saliency, mask)
    order = torch.rand(saliency.shape, generator=generator, dtype=torch.float32, device=generator.device).to(
        saliency.device
    )
    # Both orders list the masked tokens first: by place and by lot. Tokens outside keep their own place in both.
    places = torch.arange(saliency.shape[-1], device=saliency.device, dtype=order.dtype).expand_as(order)
    outside = places + 1 + places.shape[-1]
    by_place = torch.where(mask, places, outside).argsort(dim=-1)
    by_lot = torch.where(mask, order, outside).argsort(dim=-1)
    return torch.empty_like(saliency).scatter_(-1, by_place, saliency.gather(-1, by_lot))


def uniform(saliency: Tensor, mask: Tensor | None = None) -> Tensor:
    """One value on every token in ``mask`` (bool, broadcasts; default all): the root mean square of saliency there.

    It lifts the image as a whole and prefers no part of it. Tokens outside the mask keep theirs.
    """
    mask = _whole(saliency, mask)
    count = mask.sum(dim=-1, keepdim=True).clamp_min(1)
    mean_square = saliency.masked_fill(~mask, 0).square().sum(dim=-1, keepdim=True) / count
    return torch.where(mask, mean_square.sqrt(), saliency)


def oracle(saliency: Tensor, span: Tensor, mask: Tensor | None = None) -> Tensor:
    """``saliency`` [..., L] with its highest values moved onto ``span`` (bool, broadcasts): the tokens that matter.

    Inside the span and outside it, tokens keep their own order. Only tokens in ``mask`` (bool, broadcasts; default
    all) take part. A constant map has no higher values to move and stays as it is.
    """
    mask = _whole(saliency, mask)
    if span.dtype != torch.bool:
        raise TypeError(f"span: wanted bool, got {span.dtype}")
    span = span.expand_as(saliency)
    descending = saliency.argsort(dim=-1, descending=True, stable=True)
    # Lists tokens as (span, rest of the mask, outside), each from high to low.
    section = torch.where(mask, torch.where(span, 0, 1), 2).gather(-1, descending)
    targets = descending.gather(-1, section.argsort(dim=-1, stable=True))
    sources = descending.gather(-1, (~mask).to(torch.int8).gather(-1, descending).argsort(dim=-1, stable=True))
    return torch.empty_like(saliency).scatter_(-1, targets, saliency.gather(-1, sources))


def _whole(saliency: Tensor, mask: Tensor | None) -> Tensor:
    if not saliency.is_floating_point():
        raise TypeError(f"saliency: wanted floating point, got {saliency.dtype}")
    if mask is None:
        return torch.ones_like(saliency, dtype=torch.bool)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: wanted bool, got {mask.dtype}")
    return mask.expand_as(saliency)
