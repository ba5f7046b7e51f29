"""Gradients against float64, judged by what eager autograd in the same dtype gets."""

from functools import cache

import cpu_matrix
import pytest
import torch
from rls_kernels.cpu.attention import steered_attention
from torch import Tensor

from rls_bench import agreement
from rls_bench.backends.cpu import BACKEND
from rls_bench.backends.eager import BACKEND as EAGER
from rls_bench.problems.draw import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = 7
# Rounding of a result that eager happens to get exactly, relative to its size.
ROUNDING = {"float32": 1e-5, "bfloat16": 4e-3, "float16": 1e-3}


def wrong_gradients(problem: Problem) -> list[str]:
    """Names of the gradients that lie further from float64 than 3 times eager's."""
    inputs, upstream, exact, allowed = wanted(problem)
    ours = agreement.gradients(BACKEND, inputs, upstream)
    return [name for name in exact if float((ours[name].double() - exact[name].double()).norm()) > allowed[name]]


@cache
def wanted(problem: Problem) -> tuple[Inputs, Tensor, dict[str, Tensor], dict[str, float]]:
    """Inputs, the output's gradient, the exact gradients and how far off each may be: once for all instruction sets."""
    inputs = draw(problem)
    shape = (problem.batch, problem.query_heads, problem.query_length, problem.value_dim)
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(inputs.query.dtype)
    exact = agreement.oracle_gradients(inputs, upstream)
    eager = agreement.gradients(EAGER, inputs, upstream)
    largest = max(float(gradient.norm()) for gradient in exact.values())

    def allowed(name: str) -> float:
        floor = float((eager[name].double() - exact[name].double()).norm())
        return 3 * floor + ROUNDING[problem.dtype] * float(exact[name].norm()) + 1e-6 * largest

    return inputs, upstream, exact, {name: allowed(name) for name in exact}


@pytest.mark.parametrize("shape", cpu_matrix.SHAPES, ids=str)
def test_gradients_agree(isa: str, shape: tuple[int, ...]) -> None:
    problems = [
        problem
        for dtype in cpu_matrix.DTYPES
        for problem in cpu_matrix.cells(shape, dtype)
        # At strength 100 a softmax is all but one-hot: its gradients are rounding noise, in every implementation.
        if problem.strength < 100 and not problem.return_stats
    ]
    wrong = {problem.key: names for problem in problems[::EVERY] if (names := wrong_gradients(problem))}
    assert wrong == {}


def test_threads_do_not_change_a_gradient() -> None:
    problem = cpu_matrix.problem((1, 4, 2, 190, 230, 32, 32), "float32", ("bk", "scalar", 2.0), is_causal=True)
    inputs = draw(problem)
    upstream = torch.randn(1, 4, 190, 32)
    alone = agreement.gradients(BACKEND, inputs, upstream)
    torch.set_num_threads(3)
    together = agreement.gradients(BACKEND, inputs, upstream)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    problem = cpu_matrix.problem((1, 2, 2, 20, 30, 16, 16), "float32", ("bk", "scalar", 2.0))
    inputs = draw(problem)
    bias = inputs.bias.clone().requires_grad_()
    out = steered_attention(inputs.query, inputs.key, inputs.value, bias, inputs.strength, scale=0.25)
    assert isinstance(out, torch.Tensor)
    out.sum().backward()
    assert bias.grad is not None
    assert bias.grad.shape == inputs.bias.shape
    assert inputs.query.grad is None


def test_a_compiled_graph_trains() -> None:
    problem = cpu_matrix.problem((1, 2, 2, 20, 30, 16, 16), "float32", ("bk", "scalar", 2.0), eps=1e-3)
    inputs = draw(problem)

    def loss(query: torch.Tensor) -> torch.Tensor:
        out = steered_attention(query, inputs.key, inputs.value, inputs.bias, inputs.strength, scale=0.25, eps=1e-3)
        assert isinstance(out, torch.Tensor)
        return out.square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        query = inputs.query.clone().requires_grad_()
        function(query).backward()
        gradients.append(query.grad)
    assert torch.equal(*gradients)


def test_padding_may_hold_garbage_in_backward() -> None:
    problem = cpu_matrix.problem((2, 2, 1, 30, 60, 16, 16), "float32", ("bk", "scalar", 2.0), has_key_lengths=True)
    inputs = draw(problem)
    assert inputs.key_lengths is not None
    for batch, length in enumerate(inputs.key_lengths.tolist()):
        inputs.key[batch, :, length:] = float("nan")
        inputs.value[batch, :, length:] = float("nan")
    gradients = agreement.gradients(BACKEND, inputs, torch.randn(2, 2, 30, 16))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not gradients["key"][1, :, int(inputs.key_lengths[1]) :].any()


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("dtype", cpu_matrix.DTYPES)
def test_a_query_of_nan_spoils_its_own_row_and_what_it_shares(
    isa: str, dtype: str, is_causal: bool, eps: float
) -> None:
    shape = (2, 4, 2, 60, 150, 16, 16)
    problem = cpu_matrix.problem(shape, dtype, ("bhk", "bhq", 2.0), is_causal=is_causal, eps=eps)
    inputs = draw(problem)
    upstream = torch.randn(2, 4, 60, 16, generator=torch.Generator().manual_seed(1)).to(inputs.query.dtype)
    clean = agreement.gradients(BACKEND, inputs, upstream)
    batch, head, row, group = 0, 1, 20, 2
    inputs.query[batch, head, row, 3] = float("nan")
    exact, ours = agreement.oracle_gradients(inputs, upstream), agreement.gradients(BACKEND, inputs, upstream)
    for name in ("query", "strength"):
        spoiled = ours[name].isnan()
        assert torch.equal(spoiled, exact[name].isnan()), name
        assert spoiled[batch, head, row].all()
        assert torch.equal(ours[name][~spoiled], clean[name][~spoiled]), name
    for name, own in (("key", head // group), ("value", head // group), ("bias", head)):
        spoiled = ours[name].isnan()
        # Where the oracle's sums over queries stay clean, so do these; keys that the query sees are spoiled.
        assert not (spoiled & ~exact[name].isnan()).any(), name
        assert spoiled[batch, own, : 150 - 60 + row + 1 if is_causal else 150].all(), name
        spoiled[batch, own] = True
        assert torch.equal(ours[name][~spoiled], clean[name][~spoiled]), name
