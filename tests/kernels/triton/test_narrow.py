"""Which kernel does a head with eps or statistics, by how far its λb spans, and that each is right on its side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from rls_kernels.triton import configurations, forward
from rls_kernels.triton.call import Call, Tensors, operands
from steered_draws import draw

from rls_bench import agreement
from rls_bench.backends.triton import BACKEND
from rls_bench.problems.inputs import Inputs

pytestmark = pytest.mark.usefixtures("small_blocks")

KINDS = [(torch.bfloat16, 1e-3, False), (torch.float16, 1e-9, False), (torch.bfloat16, 0.0, True)]
KINDS += [(torch.float16, 1e-3, True)]


def spanning(inputs: Inputs, *spans: float) -> Inputs:
    """``inputs`` with ``b`` stretched so that λb of each head spans that many powers of two, to a rounding."""
    for head, span in enumerate(spans):
        bias = inputs.bias[:, head]
        bias -= bias.min()
        bias *= span * math.log(2.0) / (float(bias.max()) * float(inputs.strength.flatten()[head]))
    return inputs


def two_heads(dtype: torch.dtype, eps: float, stats: bool, keys: int = 270, **options: Any) -> Inputs:
    return draw(sizes=(1, 2, 1, 40, keys), dtype=dtype, eps=eps, stats=stats, bias="bhk", strength="h", **options)


class Skipped:
    """A kernel that launches nothing."""

    def __getitem__(self, grid: Any) -> Any:
        return lambda *_, **__: None


def written(inputs: Inputs, monkeypatch: pytest.MonkeyPatch, *skipped: str) -> list[bool]:
    """Which heads have an output when the kernels ``skipped`` don't run; each head has all of it or nothing."""
    with monkeypatch.context() as patch:
        for name in skipped:
            patch.setattr(forward, name, Skipped())
        forward.prepared.cache_clear()
        with agreement.poisoned_memory():
            result = BACKEND.prepare(inputs)()
    forward.prepared.cache_clear()
    output = result[0] if inputs.problem.return_stats else result
    empty = output.isnan().flatten(2)
    assert torch.equal(empty.all(-1), empty.any(-1))
    return (~empty.any(-1)).flatten().tolist()


@pytest.mark.parametrize(("dtype", "eps", "stats"), KINDS)
def test_each_side_of_the_span_is_right_in_one_call(dtype: torch.dtype, eps: float, stats: bool) -> None:
    widest = configurations.narrowest(dtype == torch.float16, stats)
    inputs = spanning(two_heads(dtype, eps, stats, causal=True), widest - 0.1, widest + 0.1)
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict.reason}"


@pytest.mark.parametrize(("dtype", "eps", "stats"), KINDS)
def test_one_kernel_does_each_head_also_at_the_edge(
    dtype: torch.dtype, eps: float, stats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Statistics of fewer than 256 keys are for the wide kernel, whatever they span.
    inputs = spanning(two_heads(dtype, eps, stats, keys=256 if stats else 70), 3.0, 5.0)
    tensors = Tensors(inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength)
    call = Call.of(tensors, inputs.scale, eps)
    _, spans = forward._Columns(call, stats)(True, operands(tensors, call.strides()))
    below, exactly = spans[0, :, 1].tolist()
    assert (below, exactly) == pytest.approx((3.0, 5.0), rel=1e-5)
    wide = "floored_kernel" if eps else "prefill_kernel"
    for widest, does_narrow in (
        (exactly, [True, True]),
        (float(np.nextafter(np.float32(exactly), np.float32(0.0))), [True, False]),
        (below, [True, False]),
        (0.0, [False, False]),
    ):
        monkeypatch.setattr(configurations, "narrowest", lambda *_, widest=widest: widest)
        assert written(inputs, monkeypatch, wide) == does_narrow
        assert written(inputs, monkeypatch, "narrow_kernel") == [not does for does in does_narrow]


def test_a_span_that_is_no_number_is_for_the_wide_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = two_heads(torch.bfloat16, 1e-3, False)
    inputs.bias[0, 1, 7] = math.inf
    assert written(inputs, monkeypatch, "floored_kernel") == [True, False]


@pytest.mark.parametrize(("dtype", "eps", "stats"), KINDS)
def test_narrow_with_padding_and_a_row_without_keys(dtype: torch.dtype, eps: float, stats: bool) -> None:
    inputs = draw(
        sizes=(2, 1, 1, 33, 270), lengths=[0, 261], causal=True, dtype=dtype, eps=eps, stats=stats, size=0.5, bias="bk"
    )
    # Padding may hold anything.
    inputs.bias[1, ..., 261:] = 1e30
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict.reason}"


@pytest.mark.parametrize("eps", [1e-30, 1e-3, 1e6])
def test_narrow_with_eps_of_any_size(eps: float) -> None:
    inputs = spanning(two_heads(torch.bfloat16, eps, False, causal=True), 63.0, 20.0)
    verdict = agreement.check(BACKEND, inputs)
    assert verdict.passed, f"{inputs.problem.title}: {verdict.reason}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_strength_diverges_from_plain_attention_by_nothing(dtype: torch.dtype) -> None:
    _, stats = BACKEND.prepare(draw(sizes=(1, 1, 1, 33, 270), dtype=dtype, size=0.0, stats=True))()
    assert torch.equal(stats.kl, torch.zeros_like(stats.kl))
    assert torch.equal(stats.lse, stats.lse_steered)
    assert torch.equal(stats.entropy, stats.entropy_steered)


def test_statistics_of_few_keys_feel_no_rounded_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    few = draw(sizes=(1, 1, 1, 33, 255), dtype=torch.float16, size=0.1, stats=True)
    assert written(few, monkeypatch, "narrow_kernel") == [True]
    many = draw(sizes=(1, 1, 1, 33, 256), dtype=torch.float16, size=0.1, stats=True)
    assert written(many, monkeypatch, "narrow_kernel") == [False]
