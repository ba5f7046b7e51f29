"""Gradients are judged as outputs are: what is right passes, and each way to be wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from cheats import Trick, right
from judged import Judged, LocalReferee
from torch import Tensor

from rls_bench.backends import registry
from rls_bench.backends.eager import BACKEND as EAGER
from rls_bench.problems.draw import draw
from rls_bench.problems.grammar import parse
from rls_bench.problems.inputs import Inputs
from rls_bench.referee import Referee, check, gradients
from rls_bench.timing import training

PROBLEM = parse("H4/2 Lq9 Lk12 D16 fp32 causal λ[h] grad random")


@pytest.fixture(scope="module")
def referee() -> Referee:
    return cast(Referee, LocalReferee())


class _Turned(torch.autograd.Function):
    """Passes a tensor on, and changes the gradient that comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0]), None


def spoilt(name: str, change: Callable[[Tensor], Tensor]) -> Trick:
    """Right but for the gradient of one operand."""

    def make(inputs: Inputs) -> Callable[[int], Any]:
        def call(count: int) -> Any:
            return right(replace(inputs, **{name: _Turned.apply(getattr(inputs, name), change)}))

        return call

    return Trick(make)


def in_one_head(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[:, -1] *= 1.01
    return gradient


@pytest.mark.parametrize(
    "words",
    [
        "H4/2 Lq9 Lk12 D16 fp32 causal λ[h] grad",
        "B2 H2 L17 D16/8 bf16 padded b[k] λ[bhq] stats grad",
        "B2 H4/2 L17 D16 fp16 b[bhk] λ[bh] eps=1e-3 grad",
    ],
)
def test_what_is_right_passes(words: str, referee: Referee) -> None:
    verdict = check(EAGER, parse(words), referee)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize("name", ["sdpa-math", "keyfold", "unsteered", "cpu"])
def test_our_backends_take_gradients_anew_in_each_call(name: str, referee: Referee) -> None:
    backend = registry.get(name)
    if not backend.available():
        pytest.skip(backend.available().reason)
    verdict = check(backend, replace(PROBLEM, query_length=12), referee)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize("name", ["query", "key", "value", "bias", "strength"])
def test_a_gradient_that_is_off_is_named(name: str, referee: Referee) -> None:
    verdict = check(spoilt(name, lambda gradient: 1.01 * gradient), PROBLEM, referee)
    assert verdict.status == "wrong"
    assert verdict.reason.startswith(f"gradient of {name} is off by 0.01 of its size"), verdict.reason


def test_a_gradient_that_is_off_in_one_head_is_found(referee: Referee) -> None:
    assert "gradient of query" in check(spoilt("query", in_one_head), PROBLEM, referee).reason


def test_a_gradient_that_is_no_number_is_wrong(referee: Referee) -> None:
    verdict = check(spoilt("value", lambda gradient: gradient * torch.nan), PROBLEM, referee)
    assert verdict.reason.startswith("gradient of value is off by inf"), verdict.reason


def test_a_gradient_kept_from_an_earlier_call_is_wrong(referee: Referee) -> None:
    kept: list[Tensor] = []

    def once(gradient: Tensor) -> Tensor:
        kept.append(gradient)
        return kept[0].clone()

    assert check(spoilt("key", once), PROBLEM, referee).reason.startswith("gradient of key is off")


def test_an_operand_without_gradient_is_named(referee: Referee) -> None:
    detached = Trick(lambda inputs: lambda count: right(replace(inputs, bias=inputs.bias.detach())))
    verdict = check(detached, PROBLEM, referee)
    assert (verdict.status, verdict.reason) == ("wrong", "gradient of bias: there is none")


def test_of_a_large_problem_the_heads_of_one_key_head_are_looked_at(
    referee: Referee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "_MOST_SCORES", 0)
    monkeypatch.setattr(gradients, "_SCORES_AT_ONCE", 1)
    large = replace(PROBLEM, seed=1)
    assert len(gradients._heads(large, "any")) == 2
    assert check(EAGER, large, referee).passed
    for name in ("query", "key", "value"):
        wrong = check(spoilt(name, lambda gradient: 1.01 * gradient), large, referee)
        assert wrong.reason.startswith(f"gradient of {name} is off"), wrong.reason


def test_a_timed_call_has_its_gradients_judged() -> None:
    bench = Judged("eager", replace(PROBLEM, is_causal=False))
    assert bench.prepare().status == "ok"
    sampled = bench.sample(patience_ns=1_000_000)
    assert (sampled.status, len(sampled.samples_ns)) == ("ok", 3), sampled.reason


def test_a_step_gives_what_autograd_gives_by_hand() -> None:
    inputs = draw(PROBLEM)
    (output, found), names = training.prepared(EAGER, inputs)(), training.operands(PROBLEM)
    by_hand = dict(zip(names, found, strict=True))
    assert output.shape == training.upstream(PROBLEM).shape
    assert {name: (tuple(t.shape), t.dtype) for name, t in by_hand.items()} == training.shapes(PROBLEM)
    leaf = inputs.value.detach().requires_grad_()
    EAGER.prepare(replace(inputs, value=leaf))().backward(training.upstream(PROBLEM))
    assert leaf.grad is not None
    torch.testing.assert_close(by_hand["value"], leaf.grad)
