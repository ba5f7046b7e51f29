"""The call that is timed goes the way of a plan's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.autograd.profiler import profile

from rls_bench.backends import registry
from rls_bench.planning.repeated import repeated
from rls_bench.problems.draw import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

PROBLEM = Problem(1, 4, 2, 7, 33, 16, 16, inputs="random")


@pytest.fixture
def inputs() -> Iterator[Inputs]:
    with torch.no_grad():
        yield draw(PROBLEM)


@pytest.mark.parametrize("name", ["cpu", "sdpa-cpu", "eager"])
def test_it_follows_values_that_change_in_place(name: str, inputs: Inputs) -> None:
    backend = registry.get(name)
    call = repeated(backend, inputs)
    before = call()
    inputs.bias.mul_(-3)
    torch.testing.assert_close(call(), backend.prepare(inputs)())
    assert not torch.allclose(call(), before)


def test_it_goes_by_the_launch_and_past_torch_library_unless_watched(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, prepared = registry.get("cpu"), []
    honest = backend.prepare
    monkeypatch.setattr(backend, "prepare", lambda given: prepared.append(1) or honest(given))
    call = repeated(backend, inputs)
    call()
    assert prepared == []
    with profile(use_kineto=True, acc_events=True) as profiler:
        call()
    assert "rls_kernels::cpu_forward" in {event.key for event in profiler.key_averages()}
    assert prepared == [1]
