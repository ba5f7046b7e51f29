"""One rule of numbers for all backends: float64's result on the same numbers, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor
from wild_draws import Wild, complaint, wild_calls

from rls_bench import steered_attention
from rls_bench.agreement import judgement
from rls_bench.backends import registry
from rls_bench.errors import BackendUnsupported
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs

ON_CPU = ("eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "cpu")
EXPLAINED = (Phase.explicit, Phase.generate, Phase.shrink)
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=EXPLAINED)
LOWEST = torch.finfo(torch.float32).min


def suppressing(low: float, dtype: torch.dtype = torch.float32, **options: Any) -> Inputs:
    """A causal call whose first queries see suppressed keys alone."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 40, 24, generator=generator).to(dtype) for _ in range(3))
    bias = torch.zeros(40)
    bias[:10] = max(low, torch.finfo(dtype).min)
    return bind(query, key, value, bias, options.pop("strength", 1.0), is_causal=True, **options)


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["eager", "sdpa-math", "sdpa-cpu", "keyfold", "cpu"])
def test_rows_that_see_suppressed_keys_alone_are_float64s(name: str, dtype: torch.dtype) -> None:
    for strength in (1.0, torch.tensor([1.0, 0.5]), torch.full((1, 2, 40), 0.7)):
        inputs = suppressing(LOWEST, dtype, strength=strength)
        output = registry.get(name).prepare(inputs)()
        assert relative_error(output, judgement.oracle(inputs).output) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("low", [LOWEST, -1e9, -1e5])
def test_our_kernel_tells_scores_apart_beside_any_suppression(low: float) -> None:
    for options in ({}, {"eps": 1e-6}, {"return_stats": True}, {"strength": torch.full((1, 2, 40), 0.9)}):
        inputs = suppressing(low, **options)
        result = registry.get("cpu").prepare(inputs)()
        exact = judgement.oracle(inputs)
        if not inputs.problem.return_stats:
            assert relative_error(result, exact.output) < 1e-6, options
            continue
        assert relative_error(result[0], exact.output) < 1e-6
        for field, found in result[1]._asdict().items():
            wanted = getattr(exact, field)
            assert bool(((found - wanted).abs() <= 1e-4 + 1e-6 * wanted.abs()).all()), field


@pytest.mark.parametrize(("low", "eps"), [(LOWEST, 0.0), (-1e9, 0.0), (-1e9, 1e-6)])
def test_gradients_pass_rows_of_suppressed_keys(low: float, eps: float) -> None:
    inputs = suppressing(low, eps=eps)
    output_gradient = torch.randn(1, 2, 40, 24, generator=torch.Generator().manual_seed(1))
    found = judgement.gradients(registry.get("cpu"), inputs, output_gradient)
    wanted = judgement.oracle_gradients(inputs, output_gradient)
    # That of strength multiplies a sum of nothing by 3.4e38.
    for operand in ("query", "key", "value", "bias"):
        assert relative_error(found[operand], wanted[operand].double()) < 1e-5, operand


def test_scores_and_values_beyond_float32_come_out_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 20, 16, generator=generator) * 1e25 for _ in range(3))
    for wide in ((query, key, value), (query[:, :, :1], key, value * 1e13)):
        inputs = bind(*wide, torch.zeros(20), 1.0)
        assert relative_error(registry.get("cpu").prepare(inputs)(), judgement.oracle(inputs).output) < 1e-6


def test_a_score_less_itself_is_nothing_however_large() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, n, 3, generator=generator) for n in (70, 1, 1))
    inputs = bind(query, key * 1e19, value, torch.ones(1), 0.6, eps=1e-9, return_stats=True)
    output, stats = registry.get("cpu").prepare(inputs)()
    assert torch.equal(output, value.expand(output.shape))
    assert float(stats.kl.abs().max()) < 1e-6


def test_plain_weights_that_vanish_where_the_saliency_lifts_are_refused() -> None:
    key = torch.zeros(1, 1, 8, 16)
    key[:, :, 0] = 120 / 4
    bias = torch.zeros(8)
    bias[5] = 1.0
    arguments = torch.ones(1, 1, 2, 16), key, torch.randn(1, 1, 8, 16), bias, 120.0
    with pytest.raises(BackendUnsupported, match="backend 'valuefold': wanted keys that keep 1e-28"):
        steered_attention(*arguments, backend="valuefold")
    output = registry.get("valuefold").prepare(bind(*arguments))
    from rls_bench.backends import valuefold

    with pytest.MonkeyPatch.context() as patch:
        # As on a GPU, where nothing is read.
        patch.setattr(valuefold, "can_be_read", lambda inputs: False)
        output = registry.get("valuefold").prepare(bind(*arguments))()
    assert bool(output.isnan().all())


def test_columns_refuse_what_float16_cannot_hold() -> None:
    arguments = [torch.randn(1, 1, 8, 16).half() for _ in range(3)]
    with pytest.raises(BackendUnsupported, match="a float16 column goes up to"):
        steered_attention(*arguments, torch.full((8,), -1e9), backend="keyfold")


def test_a_floor_beyond_all_weights_leaves_those_of_the_saliency() -> None:
    query, key, value = (torch.randn(1, 1, 20, 16) for _ in range(3))
    bias = torch.randn(20)
    wanted = bias.double().softmax(-1) @ value.double()
    for name in ("eager", "valuefold", "cpu"):
        for eps in (1e30, 3e38):
            output = steered_attention(query, key, value, bias, eps=eps, backend=name)
            assert relative_error(output, wanted.expand(output.shape)) < 1e-5, (name, eps)
        none, tiny = (steered_attention(query, key, value, bias, eps=eps, backend=name) for eps in (0.0, 1e-40))
        assert torch.equal(none, tiny)


def _check(wild: Wild) -> int:
    """Hold every backend to one call; how many ran."""
    inputs, ran = wild.inputs, 0
    exact = judgement.oracle(inputs).output
    for name in ON_CPU:
        backend = registry.get(name)
        if not backend.supports(inputs.problem):
            continue
        before = torch.get_default_dtype()
        torch.set_default_dtype(wild.default)
        try:
            result = backend.prepare(inputs)()
        except BackendUnsupported:
            assert name in ("keyfold", "valuefold")
            continue
        finally:
            torch.set_default_dtype(before)
        ran += 1
        output = result[0] if inputs.problem.return_stats else result
        if name == "eager" and inputs.query.dtype == torch.float16 and not bool(output.isfinite().all()):
            # Its scores left float16.
            continue
        # Keyfold's two columns hold 16 bits of λb in bfloat16.
        reason = complaint(inputs, output, exact, 2.0**-14 if name == "keyfold" else 2.0**-21)
        assert not reason, f"{name}: {reason}"
    return ran


@settings(QUIET, max_examples=60)
@given(wild=wild_calls())
def test_any_call_is_right_or_refused(wild: Wild) -> None:
    assert _check(wild) >= 2


@pytest.mark.slow
@settings(QUIET, max_examples=2000)
@given(wild=wild_calls())
def test_two_thousand_calls_are_right_or_refused(wild: Wild) -> None:
    assert _check(wild) >= 2


def test_what_is_wrong_is_noticed() -> None:
    inputs = suppressing(LOWEST)
    exact = judgement.oracle(inputs).output
    right = exact.float()
    assert not complaint(inputs, right, exact)
    zeroed, swapped, nudged = right.clone(), right.roll(1, 2), right + 0.01
    zeroed[:, :, :3] = 3.0
    for wrong in (zeroed, swapped, nudged, right * torch.nan):
        assert complaint(inputs, wrong, exact)
