"""What the kernels share, alone: the first values of a score accumulator."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from rls_kernels.triton.tiles import load_first, lowest_score


@triton.jit
def _store_first(
    bias_ptr, out_ptr, start, stride, factor, limit, M: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr
):
    tile = load_first(bias_ptr, start, stride, factor, limit, M, N, MASKED)
    tl.store(out_ptr + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :], tile)


@triton.jit
def _store_lowest(out_ptr, scale_2):
    tl.store(out_ptr, lowest_score(scale_2) * scale_2)


@pytest.mark.parametrize("rows", [16, 128])
@pytest.mark.parametrize("keys", [16, 32, 64])
@pytest.mark.parametrize("stride", [1, 3])
def test_every_row_of_the_first_values_is_the_scaled_bias(rows: int, keys: int, stride: int) -> None:
    bias = torch.randn(200 * stride)
    tile = torch.full((rows, keys), float("nan"))
    _store_first[(1,)](bias, tile, 48, stride, 1.5, 200, rows, keys, False)
    assert torch.equal(tile, (1.5 * bias[::stride][48 : 48 + keys]).expand(rows, keys))


@pytest.mark.parametrize("limit", [0, 1, 63, 64])
def test_first_values_past_the_limit_are_zero_and_never_read(limit: int) -> None:
    bias = torch.full((64,), float("nan"))
    bias[:limit] = torch.randn(limit)
    tile = torch.full((16, 64), float("nan"))
    _store_first[(1,)](bias, tile, 0, 1, 2.0, limit, 16, 64, True)
    assert torch.equal(tile[3, :limit], 2 * bias[:limit])
    assert not tile[:, limit:].any()


@pytest.mark.parametrize("scale_2", [1e-30, 0.1, 1.0, 100.0, 1e30])
def test_the_lowest_score_stays_finite_when_scaled(scale_2: float) -> None:
    out = torch.zeros(1)
    _store_lowest[(1,)](out, scale_2)
    assert torch.isfinite(out).all()
    assert out.item() < 0
