"""Saliency on one scale, so that a strength means the same for every map."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Normalizer = Literal["zscore", "minmax", "rank", "none"]


def normalize_saliency(saliency: Tensor, method: Normalizer = "zscore", mask: Tensor | None = None) -> Tensor:
    """Bring ``saliency`` [..., L] to one scale along its last axis; float32 (float64 stays float64).

    - ``"zscore"``: mean 0, standard deviation 1 (the population's).
    - ``"minmax"``: least 0, greatest 1.
    - ``"rank"``: 0 for the least, 1 for the greatest, evenly between; equal values share the mean of their ranks.
    - ``"none"``: as it is.

    ``mask`` (bool, broadcasts to saliency) names the tokens that saliency speaks of, such as the visual ones. All
    others come out as 0, which adds nothing to a logit, and take no part in the statistics.

    What is no saliency steers nothing: NaN and infinities count as outside the mask; a map that is constant over
    the mask, or whose mask is empty, gives zeros ("none" keeps a constant); a map of no tokens is returned empty.

    Raises TypeError for saliency that is no real Tensor or a mask that is no bool one, ValueError for a
    scalar, a mask that doesn't broadcast or an unknown method.
    """
    values, counted = _counted(saliency, method, mask)
    result_dtype = torch.float64 if saliency.dtype == torch.float64 else torch.float32
    if method == "none" or values.shape[-1] == 0:
        return values.to(result_dtype)
    count = counted.sum(dim=-1, keepdim=True)
    low = values.masked_fill(~counted, torch.inf).amin(dim=-1, keepdim=True)
    high = values.masked_fill(~counted, -torch.inf).amax(dim=-1, keepdim=True)
    if method == "zscore":
        # Against the greatest magnitude first, so that squares of huge values stay finite.
        unit = values / values.abs().amax(dim=-1, keepdim=True)
        centred = (unit - unit.sum(dim=-1, keepdim=True) / count).masked_fill(~counted, 0)
        scaled = centred / (centred.square().sum(dim=-1, keepdim=True) / count).sqrt()
    elif method == "minmax":
        # Halved, so that the span between two huge values stays finite.
        scaled = (values / 2 - low / 2) / (high / 2 - low / 2)
    else:
        scaled = _mean_rank(values, counted) / (count - 1)
    # A constant map divides by zero above and is dropped here.
    return scaled.masked_fill(~(counted & (low < high)), 0).to(result_dtype)


def _counted(saliency: Tensor, method: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Saliency in float64, 0 where it doesn't count, and where it does."""
    if not isinstance(saliency, Tensor):
        raise TypeError(f"saliency: wanted a Tensor [..., L], got {type(saliency).__name__}")
    if saliency.is_complex():
        raise TypeError(f"saliency: wanted real numbers, got {saliency.dtype}")
    if saliency.dim() == 0:
        raise ValueError("saliency: wanted [..., L], got a scalar")
    if method not in get_args(Normalizer):
        raise ValueError(f"method: wanted one of {', '.join(get_args(Normalizer))}; got {method!r}")
    counted = torch.isfinite(saliency)
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"mask: wanted a bool Tensor, got {came}")
        try:
            counted = counted & mask.expand_as(saliency)
        except RuntimeError:
            raise ValueError(
                f"mask: wanted a shape that broadcasts to saliency's {tuple(saliency.shape)}, got {tuple(mask.shape)}"
            ) from None
    return saliency.to(torch.float64).masked_fill(~counted, 0), counted


def _mean_rank(values: Tensor, counted: Tensor) -> Tensor:
    """Rank of each counted value among the counted, from 0; equal values share the mean of theirs."""
    placed = values.masked_fill(~counted, torch.inf)
    ordered = placed.sort(dim=-1).values
    below = torch.searchsorted(ordered, placed)
    not_above = torch.searchsorted(ordered, placed, right=True)
    return (below + not_above - 1) / 2
