"""From a picture's saliency to the tokens that stand for its patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class TokenSaliency(NamedTuple):
    """Saliency of a whole prompt: ``values`` float32 [length], 0 off the images, and ``mask`` bool [length], where
    the images' tokens are; ``normalize_saliency(values, mask=mask)`` takes both."""

    values: Tensor
    mask: Tensor


def project_saliency(
    map2d: Tensor | Sequence[Tensor],
    grid: Sequence[int] | Sequence[Sequence[int]],
    token_span: tuple[int, int] | Sequence[tuple[int, int]],
    *,
    length: int,
    merge: int = 1,
    reduce: Literal["mean", "max"] = "mean",
) -> TokenSaliency:
    """Bring each image's saliency to the tokens of its patches, in a prompt of ``length`` tokens.

    ``map2d`` [rows, columns] is any size; the mean over each patch's pixels is taken (or the nearest pixel's value,
    where the map is coarser). ``grid`` is (rows, columns) of *patches*, or (frames, rows, columns), where one map
    [rows, columns] serves all frames and [frames, rows, columns] gives each its own. ``merge`` joins merge × merge
    patches into one token by ``reduce``: 2 for Qwen2-VL, whose ``image_grid_thw`` is such a grid. ``token_span`` is
    (first, past the last) of the image's tokens, laid out frame by frame and row by row. For several images give all
    three as sequences of the same length. Tokens of no image get 0, which steers nothing.

    Raises TypeError where a map is no Tensor, ValueError where a grid doesn't divide by merge, a span's length isn't
    the number of merged patches, spans overlap or leave the prompt, or the three sequences differ in length.
    """
    maps = [map2d] if isinstance(map2d, Tensor) else list(map2d)
    if strangers := [type(each).__name__ for each in maps if not isinstance(each, Tensor)]:
        raise TypeError(f"map2d: wanted a Tensor [rows, columns] or a sequence of them, got {strangers[0]} in it")
    single = isinstance(map2d, Tensor)
    grids: list[Sequence[int]] = [grid] if single else list(grid)  # type: ignore[list-item, arg-type]
    spans: list[tuple[int, int]] = [token_span] if single else list(token_span)  # type: ignore[list-item, arg-type]
    if not len(maps) == len(grids) == len(spans):
        raise ValueError(
            f"map2d, grid, token_span: wanted one of each for each image, got {len(maps)}, {len(grids)}, {len(spans)}"
        )
    device = maps[0].device if maps else torch.device("cpu")
    values = torch.zeros(length, dtype=torch.float32, device=device)
    mask = torch.zeros(length, dtype=torch.bool, device=device)
    for image, (saliency, patches, (first, end)) in enumerate(zip(maps, grids, spans, strict=True)):
        tokens = _image_tokens(saliency, patches, merge, reduce)
        if not 0 <= first <= end <= length:
            raise ValueError(f"token_span: wanted a span inside the prompt's {length} tokens, got ({first}, {end})")
        if end - first != tokens.numel():
            raise ValueError(
                f"token_span: image {image} has {tokens.numel()} tokens (grid {tuple(patches)}, merge {merge}), "
                f"but ({first}, {end}) spans {end - first}"
            )
        if mask[first:end].any():
            raise ValueError(f"token_span: ({first}, {end}) of image {image} overlaps an earlier image's")
        values[first:end] = tokens
        mask[first:end] = True
    return TokenSaliency(values, mask)


def _image_tokens(saliency: Tensor, grid: Sequence[int], merge: int, reduce: str) -> Tensor:
    """One image's saliency [rows, columns] or [frames, rows, columns] as float32 [tokens]."""
    if len(grid) not in (2, 3) or any(side < 1 for side in grid):
        raise ValueError(f"grid: wanted (rows, columns) or (frames, rows, columns) of patches, got {tuple(grid)}")
    frames, rows, columns = (1, *grid) if len(grid) == 2 else tuple(grid)
    if merge < 1 or rows % merge or columns % merge:
        raise ValueError(f"merge: wanted a divisor of the grid {rows} × {columns}, got {merge}")
    if reduce not in ("mean", "max"):
        raise ValueError(f"reduce: wanted mean or max, got {reduce!r}")
    if saliency.dim() not in (2, 3) or (saliency.dim() == 3 and saliency.shape[0] not in (1, frames)):
        raise ValueError(f"map2d: wanted [rows, columns] or [{frames}, rows, columns], got {tuple(saliency.shape)}")
    pixels = saliency.float().reshape(-1, 1, *saliency.shape[-2:])
    patches = functional.interpolate(pixels, size=(rows, columns), mode="area")
    pool = functional.max_pool2d if reduce == "max" else functional.avg_pool2d
    merged = pool(patches, merge)
    return merged.expand(frames, -1, -1, -1).flatten()
