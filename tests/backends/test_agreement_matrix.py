"""Every torch-native backend against the float64 oracle, on drawn problems."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawn_problems import drawn_inputs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rls_bench import agreement
from rls_bench.backends import registry
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import DType, Problem

NATIVE = ("eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "unsteered")
EXPLAINED = (Phase.explicit, Phase.generate, Phase.shrink)
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=EXPLAINED)


@settings(QUIET, max_examples=40)
@given(inputs=drawn_inputs())
def test_each_agrees_with_the_oracle_or_says_why_not(inputs: Inputs) -> None:
    truth, truth_unsteered = agreement.truths(inputs)
    for name in NATIVE:
        backend = registry.get(name)
        support = backend.supports(inputs.problem)
        if not support:
            assert support.reason, name
            assert "\n" not in support.reason, name
            continue
        verdict = agreement.check(backend, inputs, truth if backend.steers else truth_unsteered)
        assert verdict.passed, f"{name}, {inputs.problem.title}: {verdict}"


@settings(QUIET, max_examples=30)
@given(inputs=drawn_inputs(return_stats=True))
def test_statistics_agree_with_the_oracle(inputs: Inputs) -> None:
    verdict = agreement.check(registry.get("eager"), inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict}"


@settings(QUIET, max_examples=15)
@given(inputs=drawn_inputs(dtype="float32", strength=2.0))
def test_gradients_of_each_agree_with_the_oracle(inputs: Inputs) -> None:
    output_gradient = torch.randn(
        inputs.problem.batch, inputs.problem.query_heads, inputs.problem.query_length, inputs.problem.value_dim
    )
    wanted = agreement.oracle_gradients(inputs, output_gradient)
    for name in ("eager", "sdpa-math", "keyfold", "valuefold"):
        backend = registry.get(name)
        if not backend.supports(replace(inputs.problem, requires_grad=True)):
            continue
        found = agreement.gradients(backend, inputs, output_gradient)
        for operand, gradient in wanted.items():
            # A gradient that cancels to nothing (a single key) still carries the rounding of its terms.
            allowed = 2e-4 * gradient.norm() + 1e-5 * output_gradient.norm()
            assert (found[operand] - gradient).norm() <= allowed, f"{name}: {operand} of {inputs.problem.title}"


# Each compiles for seconds.
@pytest.mark.parametrize(
    ("dtype", "change"),
    [
        ("float32", {"is_causal": True}),
        ("bfloat16", {"strength_layout": "bhq"}),
        *(
            pytest.param(dtype, change, marks=pytest.mark.slow)
            for dtype, change in (
                ("float32", {}),
                ("float32", {"has_key_lengths": True}),
                ("float32", {"strength_layout": "bhq"}),
                ("bfloat16", {}),
                ("bfloat16", {"is_causal": True}),
                ("bfloat16", {"has_key_lengths": True}),
            )
        ),
    ],
)
@settings(QUIET, max_examples=1)
@given(data=st.data())
def test_flex_agrees_with_the_oracle(dtype: str, change: dict[str, object], data: st.DataObject) -> None:
    fixed = {"query_length": 63, "key_length": 63, "head_dim": 64, "value_dim": 64, "eps": 0.0}
    plain = {"is_causal": False, "has_key_lengths": False, "strength_layout": "scalar", "bias_layout": "bk"}
    shape = {"batch": 2, "kv_heads": 2, "group_size": 3, "dtype": dtype}
    inputs = data.draw(drawn_inputs(**{**fixed, **plain, **shape, **change}))
    verdict = agreement.check(registry.get("flex"), inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict}"


@pytest.mark.parametrize("name", ["eager", "sdpa-math", "sdpa-cpu"])
@settings(QUIET, max_examples=10)
@given(data=st.data())
def test_no_strength_is_unsteered_attention_bit_for_bit(name: str, data: st.DataObject) -> None:
    inputs = data.draw(drawn_inputs(strength=0.0, eps=0.0, value_dim=64, head_dim=64))
    without_bias = replace(inputs, bias=torch.zeros_like(inputs.bias))
    backend = registry.get(name)
    assert torch.equal(backend.prepare(inputs)(), backend.prepare(without_bias)())


@pytest.mark.parametrize(("capability", "most"), [("AVX2", 1024), ("AVX512", 512)])
def test_flex_takes_float32_on_a_cpu_up_to_where_its_sums_are_right(
    capability: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    flex, fits = registry.get("flex"), Problem(1, 2, 2, 256, most, 64, 64)
    assert flex.supports(fits)
    refused = flex.supports(replace(fits, key_length=2 * most))
    assert not refused
    assert f"past {most} keys" in refused.reason
    assert flex.supports(replace(fits, key_length=2 * most, dtype="bfloat16"))
    assert flex.supports(replace(fits, key_length=8192, query_length=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_valuefold_refuses_a_query_that_stands_alone(dtype: DType) -> None:
    valuefold = registry.get("valuefold")
    fits = Problem(1, 2, 2, 4, 2048, 64, 64, dtype=dtype)
    assert valuefold.supports(fits)
    refused = valuefold.supports(replace(fits, query_length=1))
    assert not refused
    assert "single query" in refused.reason
