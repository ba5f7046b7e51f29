"""A plan: what it runs, what it refuses, and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from rls_baselines.reference import steered_attention_oracle
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import rls_bench
from rls_bench.errors import BackendUnsupported, UnknownBackend
from rls_bench.planning.likeness import Likeness

BACKENDS = ["auto", "cpu", "sdpa-cpu", "sdpa-math", "eager"]


def operands(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """query [2, 4, 3, 8], key and value [2, 2, 5, 8]."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 4, 3, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 5, 8, generator=generator).unbind()
    return query, key, value


BIAS = torch.randn(2, 5, generator=torch.Generator().manual_seed(9))
LENGTHS = torch.tensor([5, 3])


def planned(**options: Any) -> rls_bench.Plan:
    return rls_bench.plan(*operands(), BIAS, 1.5, enable_gqa=True, **options)


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).norm() <= 1e-5 * wanted.norm())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"key_lengths": LENGTHS}], ids=["", "causal", "padded"])
def test_each_call_is_what_the_operator_gives(backend: str, options: dict[str, Any]) -> None:
    plan = planned(backend=backend, **options)
    for seed, bias, strength in ((0, None, None), (1, None, None), (2, BIAS.neg(), None), (3, None, 0.5), (4, BIAS, 2)):
        layer = operands(seed)
        exact = steered_attention_oracle(
            *layer, BIAS if bias is None else bias, 1.5 if strength is None else strength, **options
        )
        assert close(plan(*layer, bias, strength), exact.output)


def test_a_plan_says_what_it_is() -> None:
    plan = planned(backend="sdpa-cpu")
    assert plan.backend == "sdpa-cpu"
    assert plan.problem.key_length == 5
    assert repr(plan) == f"Plan('sdpa-cpu' for {plan.problem.title})"


def test_making_one_refuses_what_the_operator_refuses() -> None:
    with pytest.raises(ValueError, match=r"bias: wanted shape .*; got shape \[4\]"):
        rls_bench.plan(*operands(), torch.zeros(4), enable_gqa=True)
    with pytest.raises(UnknownBackend):
        planned(backend="flash")
    with pytest.raises(BackendUnsupported, match="eps must be 0"):
        planned(backend="sdpa-cpu", eps=1e-3)


OTHERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "shape": (lambda q: q[:, :, :2], r"query: planned with shape \[2, 4, 3, 8\]; got \[2, 4, 2, 8\]"),
    "strides": (
        lambda q: q.mT.contiguous().mT,
        r"query: planned with strides \(96, 24, 8, 1\); got \(96, 24, 1, 3\)",
    ),
    "dtype": (lambda q: q.bfloat16(), r"query: planned with dtype torch.float32; got torch.bfloat16"),
    "device": (lambda q: q.to("meta"), r"query: planned with device cpu; got meta"),
    "gradient": (lambda q: q.clone().requires_grad_(), r"query: planned with requires_grad False; got True"),
    "type": (lambda q: torch.nn.Parameter(q, requires_grad=False), r"query: planned with type Tensor; got Parameter"),
    "no tensor": (lambda q: q.tolist(), r"query: planned as a Tensor; got list"),
    "a view whose sign waits": (lambda q: q._neg_view(), r"planned for plain strided tensors; got another kind"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_differs_is_named(what: str) -> None:
    change, message = OTHERS[what]
    plan, (query, key, value) = planned(), operands()
    for _ in range(2):
        with pytest.raises(ValueError, match=message + r".*make another plan"):
            plan(change(query), key, value)
    assert plan(query, key, value).shape == (2, 4, 3, 8)


def test_the_state_of_the_thread_belongs_to_it() -> None:
    plan = planned()
    with torch.inference_mode(), pytest.raises(ValueError, match="planned with inference_mode False; got True"):
        plan(*operands())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"autocast None; got torch\.bfloat16"):
        plan(*operands())


def test_a_strength_keeps_to_its_kind() -> None:
    plan = planned()
    with pytest.raises(ValueError, match="strength: planned as a number; got a Tensor"):
        plan(*operands(), None, torch.ones(4))
    with pytest.raises(ValueError, match="strength: wanted a finite number; got nan"):
        plan(*operands(), None, float("nan"))
    of_heads = rls_bench.plan(*operands(), BIAS, torch.ones(4), enable_gqa=True)
    with pytest.raises(ValueError, match="strength: planned as a Tensor; got a number"):
        of_heads(*operands(), None, 1.0)
    with pytest.raises(ValueError, match=r"strength: planned with shape \[4\]; got \[2, 4\]"):
        of_heads(*operands(), None, torch.ones(2, 4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_checked_unless_told_not_to(backend: str) -> None:
    spoiled = BIAS.clone()
    spoiled[1, 4] = torch.nan
    with pytest.raises(ValueError, match="bias: wanted finite values; got 1 that are not"):
        planned(backend=backend)(*operands(), spoiled)
    assert planned(backend=backend, check_values=False)(*operands(), spoiled).isnan().any()


def test_gradients_flow_through_a_plan() -> None:
    query, key, value = operands()
    bias = BIAS.clone().requires_grad_()
    plan = rls_bench.plan(query, key, value, bias, 1.5, enable_gqa=True)
    for _ in range(2):
        (found,) = torch.autograd.grad(plan(query, key, value).square().sum(), bias)
        again = rls_bench.steered_attention(query, key, value, bias, 1.5, enable_gqa=True, backend="eager")
        (wanted,) = torch.autograd.grad(again.square().sum(), bias)
        assert close(found, wanted)
    with torch.no_grad(), pytest.raises(ValueError, match="bias: planned with requires_grad True; got False"):
        plan(query, key, value)


def test_a_profiler_sees_the_operator_that_otherwise_is_passed_by() -> None:
    plan = planned(backend="cpu")
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        seen = plan(*operands())
    assert "rls_kernels::cpu_forward" in {event.key for event in profiler.key_averages()}
    assert torch.equal(seen, plan(*operands()))
    with profile(activities=[ProfilerActivity.CPU]), pytest.raises(ValueError, match="query: planned with shape"):
        plan(operands()[0][:, :, :2], *operands()[1:])


def test_threads_share_a_plan() -> None:
    plan = planned()
    layers = [operands(seed) for seed in range(4)]
    alone = [plan(*layer) for layer in layers]

    def work(index: int) -> bool:
        steered = [index * 0.5] * 50 + [1.5] * 50
        return all(
            torch.equal(plan(*layers[index], None, number), alone[index]) == (number == 1.5) for number in steered
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_statistics_come_with_a_plan() -> None:
    plan = planned(return_stats=True, eps=1e-3)
    for seed in (0, 1):
        output, stats = plan(*operands(seed))
        exact = steered_attention_oracle(*operands(seed), BIAS, 1.5, eps=1e-3)
        assert close(output, exact.output)
        for name, found in stats._asdict().items():
            torch.testing.assert_close(found.double(), getattr(exact, name), rtol=1e-4, atol=1e-5)


def test_a_likeness_can_say_no_without_torchs_guard() -> None:
    alike = Likeness(query=torch.zeros(2), key=torch.zeros(3))
    assert alike.holds(torch.ones(2), torch.ones(3))
    assert not alike.holds(torch.ones(3), torch.ones(2))
