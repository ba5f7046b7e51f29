"""The cases for a GPU reach every branch of the Triton launcher: counted, line by line, without a GPU."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch

from rls_bench.agreement import branches
from rls_bench.problems.problem import Problem

# What is given in the test, what CUDA tensors alone run, and configurations, which only those who measure give.
NOT_OF_A_CALL = {"tune", "choice", "_problem", "<lambda>"}
GIVEN = "by_query = by_key = configuration"


def lines_of(code: CodeType) -> set[tuple[str, int]]:
    """Every line with code in the functions of ``code``, with the function's name."""
    found: set[tuple[str, int]] = set()
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            # The body of a class ran as it was imported.
            if inner.co_flags & inspect.CO_OPTIMIZED:
                starts = (line for _, line in dis.findlinestarts(inner))
                found |= {(inner.co_name, line) for line in starts if line is not None and line > inner.co_firstlineno}
            found |= lines_of(inner)
    return found


@contextmanager
def traced(filename: str) -> Iterator[set[tuple[str, int]]]:
    """The lines of ``filename`` that run within it, by function."""
    seen: set[tuple[str, int]] = set()

    def each(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != filename:
            return None
        seen.add((frame.f_code.co_name, frame.f_lineno))
        return each

    before = sys.gettrace()
    sys.settrace(each)
    try:
        yield seen
    finally:
        sys.settrace(before)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the kernels that are launched; on an sm_90 of 132 multiprocessors that does nothing."""
    from rls_kernels.triton import call, forward, gradients
    from triton.runtime.jit import KernelInterface

    names: set[str] = set()

    def launcher(kernel: Any, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **options: names.add(kernel.fn.__name__)

    monkeypatch.setattr(KernelInterface, "__getitem__", launcher)
    for module in (call, forward, gradients):
        monkeypatch.setattr(module, "architecture", lambda device: 90)
    monkeypatch.setattr(forward, "multiprocessors", lambda device: 132)
    # What was prepared for this GPU is launched nowhere else, nor the other way round.
    forward.prepared.cache_clear()
    yield names
    forward.prepared.cache_clear()


def launch_all(problems: list[Problem]) -> None:
    """What the backend would launch, on memory that nobody looks into."""
    from rls_kernels.triton import forward, gradients
    from rls_kernels.triton.call import Call, Tensors

    biases = {"k": (1, 1), "bk": (None, 1), "bhk": (None, None)}
    strengths = {"scalar": (1, 1, 1), "h": (1, None, 1), "bh": (None, None, 1), "bhq": (None, None, None)}
    for problem in problems:
        dtype, axes = getattr(torch, problem.dtype), (problem.batch, problem.query_heads, problem.query_length)
        query = torch.empty(*axes, problem.head_dim, dtype=dtype)
        key = torch.empty(problem.batch, problem.kv_heads, problem.key_length, problem.head_dim, dtype=dtype)
        value = torch.empty(problem.batch, problem.kv_heads, problem.key_length, problem.value_dim, dtype=dtype)
        bias_axes = [size or axis for size, axis in zip(biases[problem.bias_layout], axes, strict=False)]
        strength_axes = [size or axis for size, axis in zip(strengths[problem.strength_layout], axes, strict=True)]
        lengths = torch.empty(problem.batch, dtype=torch.int32) if problem.has_key_lengths else None
        bias, strength = torch.empty(*bias_axes, problem.key_length), torch.empty(strength_axes)
        tensors = Tensors(query, key, value, bias, strength, lengths)
        call = Call.of(tensors, 1.0, problem.eps, problem.is_causal)
        result = forward.forward(call, tensors, problem.return_stats)
        if problem.requires_grad:
            gradients.backward(call, tensors, result, torch.empty_like(result.out))


def test_every_line_of_the_launcher_runs_and_every_kernel_is_launched(launched: set[str]) -> None:
    from rls_kernels.triton import forward, gradients

    kernels: set[str] = set()
    for module in (forward, gradients):
        forward.prepared.cache_clear()
        source = Path(module.__file__).read_text()
        every, text = lines_of(compile(source, module.__file__, "exec")), source.splitlines()
        with traced(module.__file__) as seen:
            launch_all(branches.cases("cpu"))
        missed = {(name, line) for name, line in every - seen if name not in NOT_OF_A_CALL}
        assert {(name, text[line - 1].strip()) for name, line in missed} <= {("backward", GIVEN)}
        kernels |= {name for name in vars(module) if name.endswith("_kernel")}
    assert launched == kernels


def test_the_small_cases_do_not_reach_all(launched: set[str]) -> None:
    """The check above can fail, and why these cases are here."""
    from rls_bench.agreement import conformance

    half = [case for case in conformance.all_cases("cpu") if case.dtype != "float32" and not case.requires_grad]
    launch_all(half)
    assert launched == {"prefill_kernel"}


def test_half_precision_turns_main_loops_and_has_statistics() -> None:
    cases = branches.cases()
    assert len({case.name for case in cases}) == len(cases)
    half = [case for case in cases if case.dtype != "float32"]
    assert 2 * len(half) > len(cases)
    for dtype in ("bfloat16", "float16"):
        for dim in (64, 128):
            mine = [case for case in half if (case.dtype, case.head_dim) == (dtype, dim)]
            assert any(case.return_stats and case.regime == "prefill" and case.key_length > 256 for case in mine)
            assert any(case.eps and case.regime == "prefill" and case.key_length > 256 for case in mine)
            assert any(case.eps and case.return_stats and case.regime == "decode" for case in mine)


def test_a_group_is_named_by_its_cases() -> None:
    for group in branches.groups():
        assert all(case.name.startswith(f"{group}: ") for case in branches.cases("cpu", group))
