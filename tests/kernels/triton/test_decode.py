"""The decode kernels: few queries, keys split over programs, query heads of a group in one tile."""

from __future__ import annotations

import pytest
import torch
from rls_kernels.triton.forward import split_keys
from steered_draws import STRENGTH_SHAPES, draw

from rls_bench import agreement
from rls_bench.backends.triton import BACKEND


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 0.0), (torch.bfloat16, 1e-3), (torch.float16, 0.0)])
def test_one_query_over_a_cache(dtype: torch.dtype, eps: float) -> None:
    verdict = agreement.check(BACKEND, draw(sizes=(1, 3, 1, 1, 140), dtype=dtype, eps=eps, stats=True))
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize("eps", [0.0, 1e-9])
def test_causal_and_padded_over_splits(eps: float) -> None:
    inputs = draw(sizes=(2, 2, 1, 5, 100), lengths=[0, 80], causal=True, eps=eps, stats=True, size=-100.0)
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, verdict.reason


def test_strength_and_bias_of_every_layout() -> None:
    for bias, strength in zip(("k", "bk", "bhk", "bhk"), STRENGTH_SHAPES, strict=True):
        verdict = agreement.check(BACKEND, draw(sizes=(1, 2, 1, 3, 20), bias=bias, strength=strength, eps=1e-3))
        assert verdict.passed, verdict.reason


def test_more_rows_than_one_tile_holds() -> None:
    # With eps, 28 rows of heads this wide are two tiles.
    inputs = draw(sizes=(1, 4, 1, 7, 40), dims=(72, 80), dtype=torch.bfloat16, eps=1e-3, stats=True, causal=True)
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize(
    ("keys", "programs", "multiprocessors", "splits"),
    [(32_768, 8, 132, 32), (32_768, 8 * 64, 132, 1), (200, 1, 132, 4), (1_000_000, 1, 132, 64)],
)
def test_splits_fill_the_multiprocessors(keys: int, programs: int, multiprocessors: int, splits: int) -> None:
    found, length = split_keys(keys, 64, programs, multiprocessors)
    assert found == splits
    assert length % 64 == 0
    assert (found - 1) * length < keys <= found * length
