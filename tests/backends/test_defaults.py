"""What a user set as torch's default dtype or device changes nothing: every allocation says what it wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from rls_bench import agreement, plan, steered_attention
from rls_bench.backends import registry
from rls_bench.problems.binding import bind
from rls_bench.problems.draw import draw
from rls_bench.problems.problem import Problem

ON_CPU = ("eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "unsteered", "cpu")
DEFAULTS = (torch.bfloat16, torch.float16, torch.float64, "meta")
OPTIONS = (
    {},
    {"is_causal": True, "key_lengths": torch.tensor([19, 26])},
    {"eps": 1e-3},
    {"return_stats": True},
    {"eps": 1e-3, "is_causal": True, "return_stats": True},
)


@contextmanager
def default(kind: torch.dtype | str) -> Iterator[None]:
    """torch's default dtype, or device, as a user's program has set it."""
    dtype = torch.get_default_dtype()
    try:
        if isinstance(kind, str):
            torch.set_default_device(kind)
        else:
            torch.set_default_dtype(kind)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)


def arguments(queries: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Query, key, value and bias of two entries with grouped heads; one query is decode."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((4, queries), (2, 26), (2, 26))
    query, key, value = (torch.randn(2, heads, length, 24, generator=generator).to(dtype) for heads, length in sizes)
    return query, key, value, torch.randn(2, 26, generator=generator)


@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
@pytest.mark.parametrize("name", ON_CPU)
def test_outputs_and_statistics_are_right_under_any_default(name: str, kind: torch.dtype | str) -> None:
    backend, ran = registry.get(name), 0
    for queries, dtype, options in product((1, 9), (torch.float32, torch.bfloat16), OPTIONS):
        inputs = bind(*arguments(queries, dtype), 1.5, enable_gqa=True, **options)  # type: ignore[arg-type]
        if not backend.supports(inputs.problem):
            continue
        known = agreement.truth(agreement.inputs_for(backend, inputs))
        with default(kind):
            verdict = agreement.check(backend, inputs, known)
        assert verdict.passed, f"{inputs.problem.title}: {verdict}"
        ran += 1
    assert ran >= 4


@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
@pytest.mark.parametrize("name", [name for name in ON_CPU if name not in ("sdpa-cpu", "unsteered")])
def test_gradients_are_right_under_any_default(name: str, kind: torch.dtype | str) -> None:
    """Of the output, and of the statistics where there are any."""
    for queries, return_stats in product((1, 9), (False, True)):
        inputs = bind(*arguments(queries, torch.float32), 1.5, enable_gqa=True, return_stats=return_stats)
        if not registry.get(name).supports(replace(inputs.problem, requires_grad=True)):
            continue
        output_gradient = torch.randn(2, 4, queries, 24, generator=torch.Generator().manual_seed(1))
        wanted = agreement.oracle_gradients(inputs, output_gradient)
        with default(kind):
            found = agreement.gradients(registry.get(name), inputs, output_gradient)
        for operand, gradient in wanted.items():
            assert found[operand].dtype == torch.float32
            assert (found[operand] - gradient).norm() <= 2e-4 * gradient.norm() + 1e-5, operand


@pytest.mark.parametrize("name", ON_CPU)
def test_an_autocast_around_the_call_changes_nothing(name: str) -> None:
    backend = registry.get(name)
    for return_stats in (False, True):
        inputs = bind(*arguments(9, torch.float32), 1.5, enable_gqa=True, return_stats=return_stats)
        if not backend.supports(inputs.problem):
            continue
        known = agreement.truth(agreement.inputs_for(backend, inputs))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            verdict = agreement.check(backend, inputs, known)
        assert verdict.passed, verdict


def test_gradients_of_statistics_are_those_of_float32_also_where_backward_runs_in_an_autocast() -> None:
    inputs = bind(*arguments(9, torch.float32), 1.5, enable_gqa=True, return_stats=True)
    output_gradient = torch.ones(2, 4, 9, 24)
    wanted = agreement.oracle_gradients(inputs, output_gradient)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = agreement.gradients(registry.get("cpu"), inputs, output_gradient)
    for operand, gradient in wanted.items():
        assert (found[operand] - gradient).norm() <= 2e-4 * gradient.norm() + 1e-4, operand


@pytest.mark.parametrize("kind", DEFAULTS, ids=str)
def test_every_door_is_open_under_any_default(kind: torch.dtype | str) -> None:
    given = arguments(9, torch.float32)
    wanted = agreement.oracle(bind(*given, 1.5, enable_gqa=True))
    with default(kind):
        plain = steered_attention(*given, 1.5, enable_gqa=True)
        output, stats = steered_attention(*given, 1.5, enable_gqa=True, return_stats=True)
        planned = plan(*given, 1.5, enable_gqa=True)(*given[:3], given[3], 1.5)
        drawn = draw(Problem(1, 2, 2, 9, 26, 16, 16, inputs="random"))
        checked = agreement.check(registry.get("eager"), drawn)
    for found in (plain, output, planned):
        assert found.dtype == torch.float32
        assert (found - wanted.output).abs().max() < 1e-5
    for field in ("lse", "lse_steered", "kl"):
        assert (getattr(stats, field) - getattr(wanted, field)).abs().max() < 1e-4
    assert drawn.query.device.type == "cpu"
    assert checked.passed
