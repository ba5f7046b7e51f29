"""The check of agreement itself: each fault that it guards against is shown to fail it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rls_bench import agreement
from rls_bench.agreement import judgement
from rls_bench.backends import registry
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Support
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


def inputs(dtype: torch.dtype = torch.float32, return_stats: bool = False) -> Inputs:
    """B1 H2 L33 D16."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 33, 16, generator=generator).to(dtype) for _ in range(3))
    return bind(query, key, value, torch.randn(1, 33, generator=generator), 2.0, return_stats=return_stats)


class Spoiled(Backend):
    """The eager backend with its output spoiled."""

    name = "spoiled"

    def __init__(self, spoil: Callable[[Inputs, Tensor], Tensor]) -> None:
        self.spoil = spoil

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        call = registry.get("eager").prepare(inputs)
        return lambda: self.spoil(inputs, call())


def unwritten(_: Inputs, output: Tensor) -> Tensor:
    fresh = torch.empty_like(output)
    fresh[:, :, :-1] = output[:, :, :-1]
    return fresh


def changing(given: Inputs, output: Tensor) -> Tensor:
    given.value[0, 0, 0, 0] += 1.0
    return output


def drifting(state: list[float]) -> Callable[[Inputs, Tensor], Tensor]:
    def spoil(_: Inputs, output: Tensor) -> Tensor:
        state[0] += 2e-7
        return output * (1.0 + state[0])

    return spoil


FAULTS: dict[str, tuple[Callable[[Inputs, Tensor], Tensor], str]] = {
    "a wrong scale": (lambda _, o: o * 1.001, "× the floor"),
    "a wrong element": (
        lambda _, o: o + torch.nn.functional.pad(torch.full((1, 1, 1, 1), 0.1), (0, 15, 0, 32, 0, 1)),
        "× the floor",
    ),
    "NaN": (lambda _, o: o.masked_fill(o == o.max(), float("nan")), "not finite"),
    "an output left unwritten": (unwritten, "never written"),
    "a changed input": (changing, "changed its input value"),
    "another result": (drifting([0.0]), "another result the second time"),
    "a wrong shape": (lambda _, o: o[:, :, 1:], "output: wanted"),
    "a wrong dtype": (lambda _, o: o.double(), "output: wanted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_fails_the_check(fault: str) -> None:
    spoil, reason = FAULTS[fault]
    verdict = agreement.check(Spoiled(spoil), inputs())
    assert not verdict.passed
    assert reason in verdict.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_backend_passes(dtype: torch.dtype) -> None:
    verdict = agreement.check(Spoiled(lambda _, output: output), inputs(dtype))
    assert verdict.passed
    assert verdict.ratio is not None
    assert verdict.ratio <= 1.0


@pytest.mark.parametrize("field", AttentionStats._fields)
def test_a_wrong_statistic_fails_the_check(field: str) -> None:
    given = inputs(return_stats=True)
    output, stats = registry.get("eager").prepare(given)()
    assert agreement.judge(given, output, stats).passed
    spoiled = stats._replace(**{field: getattr(stats, field) + 0.01})
    verdict = agreement.judge(given, output, spoiled)
    assert not verdict.passed
    assert f"stats.{field}" in verdict.reason


def test_the_floor_is_judged_against_plain_attention_for_the_unsteered_backend() -> None:
    assert agreement.check(registry.get("unsteered"), inputs()).passed
    # The same backend, taken for one that steers, is far off.
    unsteered = registry.get("unsteered")
    pretender = Spoiled(lambda given, _: unsteered.prepare(given)())
    assert not agreement.check(pretender, inputs()).passed


def test_poisoned_memory_is_poisoned_and_the_mode_restored() -> None:
    with agreement.poisoned_memory():
        assert bool(torch.empty(7).isnan().all())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="fills the heap through glibc's mallopt")
def test_a_compiled_backend_that_leaves_output_unwritten_fails_the_check() -> None:
    # As a compiled graph takes its buffers: past torch's own fill of fresh memory.
    take = torch._C._dynamo.guards._empty_strided_cpu

    def unwritten_by_graph(_: Inputs, output: Tensor) -> Tensor:
        fresh = take(tuple(output.shape), output.stride(), output.dtype)
        fresh[:, :, :-1] = output[:, :, :-1]
        return fresh

    spoiled = Spoiled(unwritten_by_graph)
    spoiled.compiles = True
    verdict = agreement.check(spoiled, inputs())
    assert not verdict.passed
    assert "never written" in verdict.reason


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="fills the heap through glibc's mallopt")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_heap_is_poisoned_in_every_dtype_and_left_as_it_was(dtype: torch.dtype) -> None:
    # Too large for memory kept from before, so that it comes from the system as zeros.
    size = 2**26
    with agreement.poisoned_heap():
        assert bool(torch.empty(4096, dtype=dtype).isnan().all())
    assert not bool(torch.empty(size, dtype=dtype).isnan().any())


def test_a_large_problem_is_judged_on_rows_that_hold_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "_MOST_SCORES", 2 * 33 * 5)
    rows = agreement.sample_rows(inputs())
    assert len(rows) == 5
    assert (int(rows[0]), int(rows[-1])) == (0, 32)
    assert agreement.check(Spoiled(lambda _, output: output), inputs()).passed
    late = Spoiled(lambda _, output: output * torch.linspace(1, 1.1, 33)[:, None])
    assert not agreement.check(late, replace(inputs())).passed
