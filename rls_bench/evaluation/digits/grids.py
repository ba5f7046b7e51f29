"""Grids of real handwritten digits, each cell tinted by a hue, under noise and faded colour.

The digits are the 1,797 8 × 8 scans that scikit-learn carries (UCI, optical recognition of handwritten digits).
"""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rls_bench.evaluation.extra import require

Split = Literal["train", "calibration", "test"]

SIDE = 4
CELLS = SIDE * SIDE
CELL_PIXELS = 8
HUES = 8
_SPLITS: dict[Split, tuple[int, int]] = {"train": (0, 1100), "calibration": (1100, 1400), "test": (1400, 1797)}


class Look(NamedTuple):
    """How well a grid can be seen: the standard deviation of its pixel ``noise``, where paper is 0 and ink up to 1, and
    how much ``colour`` the ink has, from 0 (grey) to 1."""

    noise: float
    colour: float


class Looks(NamedTuple):
    """A look for each grid: both [count]."""

    noise: Tensor
    colour: Tensor


SETS = {"clean": Look(0.0, 1.0), "mid": Look(0.22, 0.8), "hard": Look(0.25, 0.47), "very hard": Look(0.35, 0.35)}


@dataclass(frozen=True)
class Grids:
    """A batch of grids and one or more questions for each.

    ``pixels`` [B, 3, 32, 32] float32; ``hues`` and ``answers`` [B, Q] int64: the hue asked for and the digit in the
    one cell that has it; ``cells`` [B, Q] int64: that cell, counted by rows.
    """

    pixels: Tensor
    hues: Tensor
    answers: Tensor
    cells: Tensor


@cache
def _digits(split: Split) -> tuple[Tensor, Tensor]:
    """Ink [N, 8, 8] in [0, 1] and labels [N]; no scan is in two splits."""
    require("sklearn", task="digits")
    from sklearn.datasets import load_digits

    scans = load_digits()
    order = torch.randperm(len(scans.target), generator=torch.Generator().manual_seed(0))
    chosen = order[slice(*_SPLITS[split])]
    return torch.from_numpy(scans.images).float()[chosen] / 16, torch.from_numpy(scans.target).long()[chosen]


def draw(count: int, split: Split, look: Look | Looks, generator: torch.Generator, questions: int = 1) -> Grids:
    """``count`` grids; the ``questions`` hues asked for are in one cell each, the other cells share the other hues."""
    ink, labels = _digits(split)
    picked = torch.randint(len(labels), (count, CELLS), generator=generator)
    hues, cells, tints = _tint(count, questions, generator)
    pixels = _render(ink[picked], tints, look, generator)
    return Grids(pixels, hues, labels[picked].gather(1, cells), cells)


def draw_presence(count: int, split: Split, look: Look | Looks, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Grids of a random subset of the hues: pixels [count, 3, 32, 32], and which it holds, [count, HUES], 0 or 1."""
    ink, labels = _digits(split)
    picked = torch.randint(len(labels), (count, CELLS), generator=generator)
    # A hue that isn't drawn keeps a trace of weight, so that an empty subset can still fill a grid.
    weights = (torch.rand(count, HUES, generator=generator) < 0.5) + 1e-6
    tints = torch.multinomial(weights, CELLS, replacement=True, generator=generator)
    present = torch.zeros(count, HUES).scatter_(1, tints, 1.0)
    return _render(ink[picked], tints, look, generator), present


def patches(pixels: Tensor) -> Tensor:
    """One token a cell: [B, 3, 32, 32] to [B, 16, 192]."""
    batch = len(pixels)
    cells = pixels.reshape(batch, 3, SIDE, CELL_PIXELS, SIDE, CELL_PIXELS).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, CELLS, -1)


def _tint(count: int, questions: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    hues = torch.rand(count, HUES, generator=generator).argsort(1)
    asked, others = hues[:, :questions], hues[:, questions:]
    cells = torch.rand(count, CELLS, generator=generator).argsort(1)[:, :questions]
    tints = others.gather(1, torch.randint(others.shape[1], (count, CELLS), generator=generator))
    return asked, cells, tints.scatter(1, cells, asked)


def _render(ink: Tensor, tints: Tensor, look: Look | Looks, generator: torch.Generator) -> Tensor:
    """Ink [B, 16, 8, 8] in the colours of ``tints`` [B, 16], laid out as [B, 3, 32, 32]."""
    palette = torch.tensor([hsv_to_rgb(hue / HUES, 1.0, 1.0) for hue in range(HUES)])
    noise, colour = (torch.as_tensor(level).reshape(-1, 1, 1) for level in look)
    tint = palette[tints] * colour + palette.mean(1)[tints][..., None] * (1 - colour)
    cells = ink[:, :, None] * tint[..., None, None]
    cells = cells + noise[..., None, None] * torch.randn(cells.shape, generator=generator)
    grid = cells.reshape(len(ink), SIDE, SIDE, 3, CELL_PIXELS, CELL_PIXELS).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(len(ink), 3, SIDE * CELL_PIXELS, SIDE * CELL_PIXELS)
