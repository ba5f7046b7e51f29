"""What triton's kernels are spared: rows too far apart for 32-bit offsets, and numbers that float32 has no room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rls_bench.backends import triton
from rls_bench.errors import BackendUnsupported
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs

LOWEST = torch.finfo(torch.float32).min


def inputs_of(bias: torch.Tensor, strength: float = 1.0, **options: Any) -> Inputs:
    operands = (torch.zeros(1, 1, 4, 16), torch.zeros(1, 1, 8, 16), torch.zeros(1, 1, 8, 16))
    return bind(*operands, bias, strength, **options)


@pytest.mark.parametrize(("stride", "is_near"), [(2**20, True), (2**24, True), (2**26, False), (2**31, False)])
def test_rows_too_far_apart_are_copied(stride: int, is_near: bool) -> None:
    rows = torch.empty_strided((1, 1, 64, 16), (0, 0, stride, 1), dtype=torch.float16, device="meta")
    assert (triton.near(rows) is rows) == is_near
    assert triton.near(rows).stride(2) == (stride if is_near else 16)


def test_one_suppression_saturates_and_several_are_refused() -> None:
    bias = torch.zeros(8)
    bias[:3] = LOWEST
    carried, strength = triton._in_range(inputs_of(bias))
    assert float((carried * strength).min()) < -1e20
    assert torch.equal((carried * strength)[..., 3:], torch.zeros(1, 1, 5))
    bias[0] = LOWEST / 2
    with pytest.raises(BackendUnsupported, match="several values lie beyond"):
        triton._in_range(inputs_of(bias))


def test_a_small_strength_takes_what_a_large_bias_gives() -> None:
    bias = torch.linspace(-1, 1, 8) * 1e30
    carried, strength = triton._in_range(inputs_of(bias, 1e-29))
    assert float(carried.abs().max()) <= 2.0**44
    assert torch.allclose(carried * strength, bias * 1e-29, rtol=1e-6)


def test_statistics_beside_a_bias_that_rounds_scores_away_are_refused() -> None:
    with pytest.raises(BackendUnsupported, match="λb beside statistics"):
        triton._in_range(inputs_of(torch.full((8,), -1e9), return_stats=True))


def test_keys_that_float64_weighs_alike_are_refused_beside_eps() -> None:
    bias = torch.zeros(8)
    bias[:5] = LOWEST
    # The last query sees all eight keys, the first of four the first five of them.
    assert triton._in_range(inputs_of(bias, eps=1e-6))
    assert triton._in_range(inputs_of(bias, is_causal=True))
    for given, options in ((bias, {"is_causal": True}), (bias, {"key_lengths": torch.tensor([4])}), (-bias, {})):
        with pytest.raises(BackendUnsupported, match="beside eps, the largest λb that a query sees"):
            triton._in_range(inputs_of(given, eps=1e-6, **options))
    # One key alone, and what sees nothing.
    for length in (0, 1):
        assert triton._in_range(inputs_of(bias, eps=1e-6, key_lengths=torch.tensor([length])))
    bias[:5] = -1e9
    assert triton._in_range(inputs_of(bias, eps=1e-6, is_causal=True))
