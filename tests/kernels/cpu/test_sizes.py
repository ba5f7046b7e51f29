"""Lengths and widths about the sizes of tiles and blocks, with every layout: what `make sanitize-cpu` runs."""

from itertools import product

import cpu_matrix
import pytest
import torch
from rls_kernels.cpu.attention import steered_attention

from rls_bench.problems.draw import draw
from rls_bench.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = (1, 7, 63, 111, 129)
LAYOUTS = tuple(product(("k", "bk", "bhk"), ("scalar", "h", "bh", "bhq")))


def problems(size: int, dtype: str) -> list[Problem]:
    """Every pair of layouts once, masks, eps and statistics taking turns with them."""
    # An output of one number may all but cancel, and its error relative to itself would tell nothing.
    width = max(size, 7)
    shape = (2, 2, 1, size, size + 6, min(width, 111), min(width, 63))
    return [
        cpu_matrix.problem(
            shape if turn % 2 else (*shape[:3], min(size, 3), *shape[4:]),
            dtype,
            (bias, strength, 2.0),
            is_causal=turn % 3 != 0,
            has_key_lengths=turn % 4 < 2,
            eps=1e-3 if turn % 5 < 2 else 0.0,
            return_stats=turn % 5 > 2,
        )
        for turn, (bias, strength) in enumerate(LAYOUTS)
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", cpu_matrix.DTYPES)
def test_every_layout_agrees_at_odd_sizes(isa: str, size: int, dtype: str) -> None:
    assert cpu_matrix.failures(problems(size, dtype)) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", cpu_matrix.DTYPES)
def test_an_empty_row_has_no_gradient(isa: str, size: int, dtype: str) -> None:
    inputs = draw(cpu_matrix.problem((2, 2, 1, size, size, 24, 40), dtype, ("bhk", "bhq", 2.0)))
    lengths = torch.tensor([size, 0], dtype=torch.int32)
    query = inputs.query.clone().requires_grad_()
    for causal, eps in product((False, True), (0.0, 1e-3)):
        out = steered_attention(
            query,
            inputs.key,
            inputs.value,
            inputs.bias,
            inputs.strength,
            key_lengths=lengths,
            scale=0.2,
            eps=eps,
            is_causal=causal,
        )
        assert isinstance(out, torch.Tensor)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), query)
        assert gradient.isfinite().all()
        assert not gradient[1].any()
        assert not out[1].any()


# Longer than what is packed whole, so that 16-bit values are packed while they are swept.
LONG_HEAD = (1, 2, 1, 64, 13007, 96, 72)


@pytest.mark.parametrize("dtype", cpu_matrix.DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_a_long_head_agrees(isa: str, dtype: str, causal: bool) -> None:
    problem = cpu_matrix.problem(
        LONG_HEAD, dtype, ("bhk", "bhq", 2.0), is_causal=causal, has_key_lengths=True, eps=1e-3
    )
    assert cpu_matrix.failures([problem]) == []


@pytest.mark.parametrize("dtype", cpu_matrix.DTYPES)
def test_a_hidden_value_of_a_long_head_may_be_nan(isa: str, dtype: str) -> None:
    inputs = draw(cpu_matrix.problem(LONG_HEAD, dtype, ("bhk", "h", 2.0), is_causal=True))

    def output(value: torch.Tensor) -> torch.Tensor:
        out = steered_attention(
            inputs.query, inputs.key, value, inputs.bias, inputs.strength, scale=0.1, is_causal=True
        )
        assert isinstance(out, torch.Tensor)
        return out

    spoiled = inputs.value.clone()
    spoiled[:, :, -1] = torch.nan
    found = output(spoiled)
    # The last query alone sees the last key.
    assert found[:, :, -1].isnan().all()
    torch.testing.assert_close(found[:, :, :-1], output(inputs.value)[:, :, :-1], rtol=1e-2, atol=1e-3)
