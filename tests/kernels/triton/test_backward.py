"""Gradients against float64 autograd of the oracle, and what torch's own checks say of the operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from rls_kernels.triton.attention import steered_attention, steered_backward, steered_forward
from steered_draws import draw

from rls_bench import agreement
from rls_bench.backends.triton import BACKEND
from rls_bench.problems.inputs import Inputs

pytestmark = pytest.mark.usefixtures("small_blocks")

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def assert_gradients_agree(inputs: Inputs) -> None:
    torch.manual_seed(1)
    problem = inputs.problem
    shape = (problem.batch, problem.query_heads, problem.query_length, problem.value_dim)
    output_gradient = torch.randn(shape).to(inputs.query.dtype)
    found = agreement.gradients(BACKEND, inputs, output_gradient)
    wanted = agreement.oracle_gradients(inputs, output_gradient)
    for name, exact in wanted.items():
        error = float((found[name].double() - exact).norm() / exact.norm().clamp_min(1e-12))
        assert error <= TOLERANCE[inputs.query.dtype], f"{problem.title}: d{name} is off by {error:.1e}"


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 0.0), (torch.bfloat16, 0.0), (torch.float16, 1e-2)])
def test_gradients_in_every_dtype(dtype: torch.dtype, eps: float) -> None:
    assert_gradients_agree(draw(sizes=(1, 2, 1, 18, 20), dims=(16, 24), dtype=dtype, eps=eps, size=1.0))


@pytest.mark.parametrize("eps", [0.0, 1e-2])
def test_gradients_causal_padded_per_query(eps: float) -> None:
    inputs = draw(
        sizes=(2, 1, 1, 20, 33),
        lengths=[0, 25],
        causal=True,
        eps=eps,
        size=1.0,
        bias="bhk",
        strength="bhq",
        dims=(20, 16),
    )
    assert_gradients_agree(inputs)


def test_gradients_where_decode_ran() -> None:
    assert_gradients_agree(draw(sizes=(1, 2, 1, 3, 40), strength="h", size=1.0))


def test_gradients_are_the_same_every_time() -> None:
    inputs = draw(sizes=(1, 2, 1, 20, 40), dtype=torch.bfloat16)
    gradient = torch.randn(1, 2, 20, 16).bfloat16()
    first = agreement.gradients(BACKEND, inputs, gradient)
    second = agreement.gradients(BACKEND, inputs, gradient)
    assert all(torch.equal(first[name], second[name]) for name in first)


def arguments(inputs: Inputs, *, requires_grad: bool) -> tuple[Any, ...]:
    tensors = [inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength]
    fresh = [tensor.detach().clone().requires_grad_(requires_grad) for tensor in tensors]
    return *fresh, None, inputs.scale, 1e-3, True, True


def test_the_forward_operator_passes_opcheck() -> None:
    inputs = draw(sizes=(1, 1, 1, 3, 5), dims=(16, 16))
    found = torch.library.opcheck(steered_forward, arguments(inputs, requires_grad=True))
    assert set(found.values()) == {"SUCCESS"}


def test_the_backward_operator_passes_opcheck() -> None:
    inputs = draw(sizes=(1, 1, 1, 3, 5), dims=(16, 16))
    given = arguments(inputs, requires_grad=False)
    out, lse, norm, _ = steered_forward(*given)
    found = torch.library.opcheck(
        steered_backward, (*given[:6], out, lse, norm, torch.randn_like(out), inputs.scale, 1e-3, True)
    )
    assert set(found.values()) == {"SUCCESS"}


def test_compile_takes_it_in_whole() -> None:
    inputs = draw(sizes=(1, 1, 1, 3, 5))

    def step(query: torch.Tensor) -> torch.Tensor:
        out, _ = steered_attention(
            query, inputs.key, inputs.value, inputs.bias, inputs.strength, scale=inputs.scale, is_causal=True
        )
        return out.sum()

    query = inputs.query.clone().requires_grad_()
    expected = torch.autograd.grad(step(query), query)[0]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(torch.autograd.grad(compiled(query), query)[0], expected)


def test_statistics_have_no_gradient() -> None:
    inputs = draw(sizes=(1, 1, 1, 3, 5), stats=True)
    leaves = replace(inputs, query=inputs.query.clone().requires_grad_())
    _, stats = BACKEND.prepare(leaves)()
    assert not stats.kl.requires_grad
