"""No gate passes on NaN: each asks for what must be shown to hold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rls_bench import agreement
from rls_bench.agreement import judgement
from rls_bench.backends import registry
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Support
from rls_bench.choose.evidence import Candidate, Limits, _breach
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class Sevens(Backend):
    """Seven everywhere, and statistics to match."""

    name, summary = "sevens", "seven everywhere"

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        problem = inputs.problem
        rows = (problem.batch, problem.query_heads, problem.query_length)

        def call() -> object:
            output = torch.full((*rows, problem.value_dim), 7.0, dtype=inputs.query.dtype)
            stats = AttentionStats(*(torch.full(rows, 7.0, dtype=torch.float32) for _ in AttentionStats._fields))
            return (output, stats) if problem.return_stats else output

        return call


def inputs_of(size: float, **options: bool) -> Inputs:
    """Float16 whose eager scores overflow where ``size`` is about 100."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = ((torch.randn(1, 2, 32, 16, generator=generator) * times).half() for times in (size, size, 1.0))
    return bind(query, key, value, torch.randn(32, generator=generator), 1.0, **options)


@pytest.mark.parametrize("size", [1.0, 100.0, 300.0])
def test_seven_is_wrong_also_where_eager_overflows(size: float) -> None:
    verdict = agreement.check(Sevens(), inputs_of(size))
    assert not verdict.passed
    assert verdict.floor is not None
    assert math.isfinite(verdict.floor)
    assert not agreement.check(Sevens(), inputs_of(size, return_stats=True)).passed
    assert agreement.check(registry.get("sdpa-math"), inputs_of(size)).passed
    assert agreement.check(registry.get("cpu"), inputs_of(size, return_stats=True)).passed


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["floor", "exact"])
def test_a_truth_that_is_no_number_judges_nothing(part: str, spoiled: float) -> None:
    inputs = inputs_of(1.0)
    known = judgement.truth(inputs)
    if part == "floor":
        known = replace(known, floor=torch.full_like(known.floor, spoiled))
    else:
        known = replace(known, exact=known.exact._replace(output=torch.full_like(known.exact.output, spoiled)))
    right: Tensor = registry.get("sdpa-math").prepare(inputs)()
    assert not judgement.judge(inputs, right, known=known).passed


def test_a_figure_that_is_no_number_keeps_no_limit() -> None:
    from rls_bench.records.statistics import Estimate

    candidate = Candidate(Estimate(0.0, 0.0, 1.0), 3, error=math.nan)
    assert "error" in _breach(candidate, Limits(max_error=1e-3))
