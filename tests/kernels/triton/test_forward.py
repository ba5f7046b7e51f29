"""The prefill kernels against the float64 oracle."""

from __future__ import annotations

import itertools

import pytest
import torch
from steered_draws import BIAS_SHAPES, STRENGTH_SHAPES, draw

from rls_bench import agreement
from rls_bench.backends.triton import BACKEND
from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs

pytestmark = pytest.mark.usefixtures("small_blocks")


def assert_agrees(inputs: Inputs) -> None:
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict.reason}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_every_dtype(dtype: torch.dtype, eps: float) -> None:
    assert_agrees(draw(dtype=dtype, eps=eps, stats=True))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 40, 52), (1, 1, 1, 52, 40)], ids=["more keys", "more queries"])
def test_causal_is_aligned_bottom_right(sizes: tuple[int, int, int, int, int], eps: float) -> None:
    assert_agrees(draw(sizes=sizes, causal=True, eps=eps, stats=True))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_padding_and_a_row_without_keys(eps: float) -> None:
    assert_agrees(draw(sizes=(2, 1, 1, 33, 33), lengths=[0, 20], causal=True, eps=eps, stats=True))


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_strength_and_bias_of_every_layout(eps: float) -> None:
    for bias, strength in zip(("k", "bk", "bhk", "bhk"), STRENGTH_SHAPES, strict=True):
        assert_agrees(draw(sizes=(1, 2, 1, 5, 20), bias=bias, strength=strength, eps=eps))


@pytest.mark.parametrize("eps", [0.0, 1e-9])
@pytest.mark.parametrize("size", [-100.0, 0.0, 100.0])
def test_extreme_strength(size: float, eps: float) -> None:
    assert_agrees(draw(sizes=(1, 1, 1, 20, 40), size=size, eps=eps, causal=True, stats=True))


def test_odd_and_unequal_head_dims() -> None:
    assert_agrees(draw(dims=(20, 40), dtype=torch.bfloat16))


def test_grouped_query_heads() -> None:
    assert_agrees(draw(sizes=(1, 3, 1, 7, 20), strength="h"))


def test_no_strength_is_plain_attention_bit_for_bit() -> None:
    steered = draw(size=0.0, dtype=torch.bfloat16)
    plain = binding.bind(steered.query, steered.key, steered.value, torch.zeros(52), 0.0)
    assert torch.equal(BACKEND.prepare(steered)(), BACKEND.prepare(plain)())


def test_a_huge_future_key_leaves_early_queries_alone() -> None:
    inputs = draw(sizes=(1, 1, 1, 40, 40), causal=True, eps=1e-3)
    inputs.bias[..., -1] = 500.0
    assert_agrees(inputs)


MATRIX = [
    dict(zip(("lengths_", "dims", "heads", "causal", "eps", "dtype"), choice, strict=True))
    for choice in itertools.product(
        ((1, 63), (63, 1), (63, 111), (111, 63), (129, 129)),
        ((16, 16), (64, 64), (72, 24)),
        ((1, 1), (4, 1)),
        (False, True),
        (0.0, 1e-9, 1e-3),
        (torch.float32, torch.bfloat16, torch.float16),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("index", range(0, len(MATRIX), 13))
def test_matrix(index: int) -> None:
    case = MATRIX[index]
    (query_length, key_length), (heads, kv_heads) = case["lengths_"], case["heads"]
    layouts = [(bias, strength) for bias in BIAS_SHAPES for strength in STRENGTH_SHAPES]
    bias, strength = layouts[index % len(layouts)]
    assert_agrees(
        draw(
            sizes=(2, heads, kv_heads, query_length, key_length),
            dims=case["dims"],
            dtype=case["dtype"],
            bias=bias,
            strength=strength,
            size=(-100.0, -3.0, 0.5, 20.0, 100.0)[index % 5],
            eps=case["eps"],
            causal=case["causal"],
            lengths=[max(1, key_length // 2), 0] if index % 3 == 0 else None,
            stats=index % 2 == 0,
            seed=index,
        )
    )
