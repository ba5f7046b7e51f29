"""What the backend keeps for a plan's calls: the same results, launched as they were prepared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from rls_kernels.triton import attention

from rls_bench.backends import triton
from rls_bench.backends.interface import Result
from rls_bench.problems.draw import draw
from rls_bench.problems.problem import Problem

PREFILL = Problem(2, 4, 2, 33, 33, 16, 16, dtype="float16", is_causal=True, inputs="random")
DECODE = Problem(1, 4, 2, 1, 65, 32, 32, dtype="float16", has_key_lengths=True, inputs="random")


def tensors(result: Result) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [result[0], *result[1]]


@pytest.mark.parametrize("problem", [PREFILL, replace(PREFILL, eps=1e-3, return_stats=True), DECODE], ids=str)
def test_a_kept_launch_gives_what_a_call_gives_for_other_operands_and_strengths(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = draw(problem), draw(replace(problem, seed=1))
    launch = triton.Direct(triton.BACKEND, first, check_values=False)
    wanted = {
        strength: tensors(triton.BACKEND.prepare(replace(other, strength=torch.full((1, 1, 1), strength)))())
        for strength in (0.5, 2.0)
    }

    def untouched(*_: Any, **__: Any) -> Any:
        pytest.fail("a kept launch goes through no operator of torch")

    monkeypatch.setattr(attention, "steered_attention", untouched)
    for strength in (0.5, 2.0, 2.0):
        steering = launch.steer(other.bias, strength, launch.see(other.key_lengths))
        found = tensors(launch.run(other.query, other.key, other.value, steering))
        for one, right in zip(found, wanted[strength], strict=True):
            assert torch.equal(one, right)
