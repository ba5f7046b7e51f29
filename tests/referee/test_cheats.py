"""Every cheat is caught by the guards alone, and what is right, though unusual, is not accused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from cheats import CHEATS, RIGHT, TRANSPOSED, WITH_STATISTICS
from judged import LocalReferee

from rls_bench.agreement.conformance import CASES
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.problems.problem import Problem
from rls_bench.referee import Referee, check

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
STATISTICS = replace(PROBLEM, return_stats=True)


@pytest.fixture(scope="module")
def referee() -> Referee:
    return cast(Referee, LocalReferee())


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_caught(name: str, referee: Referee) -> None:
    verdict = check(CHEATS[name], PROBLEM, referee)
    assert verdict.status == "wrong", verdict
    assert verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_cheat_with_statistics_is_caught(name: str, referee: Referee) -> None:
    assert check(WITH_STATISTICS[name], STATISTICS, referee).status == "wrong"


@pytest.mark.parametrize("problem", [PROBLEM, STATISTICS, replace(PROBLEM, dtype="bfloat16")], ids=str)
def test_what_is_right_passes(problem: Problem, referee: Referee) -> None:
    verdict = check(RIGHT, problem, referee)
    assert verdict.passed, verdict.reason
    assert verdict.call_ns is not None


def test_a_result_may_lie_in_memory_as_it_likes(referee: Referee) -> None:
    assert check(TRANSPOSED, PROBLEM, referee).passed


def test_a_bare_function_of_the_inputs_can_be_checked(referee: Referee) -> None:
    from cheats import right

    assert check(right, PROBLEM, referee).passed
    assert check(lambda inputs: 2 * right(inputs), PROBLEM, referee).reason.startswith("error is")


def test_what_a_kernel_raises_is_told_with_its_place(referee: Referee) -> None:
    def broken(inputs: Any) -> Any:
        raise ZeroDivisionError("no\nscale")

    verdict = check(broken, PROBLEM, referee)
    assert verdict.status == "failed"
    assert verdict.reason.startswith("ZeroDivisionError: no scale (test_cheats.py:")


def test_kept_results_are_told_as_such(referee: Referee) -> None:
    for name in ("by_version", "once_warm", "query_packed_once", "saliency_packed_once"):
        assert "kept from before" in check(CHEATS[name], PROBLEM, referee).reason, name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(registry.names()) - {"triton"}))
def test_no_backend_of_ours_is_accused(name: str, referee: Referee) -> None:
    backend: Backend = registry.get(name)
    if not backend.available():
        pytest.skip(backend.available().reason)
    # flex compiles anew for each shape.
    for problem in CASES[:1] if backend.compiles else CASES:
        verdict = check(backend, problem, referee)
        assert verdict.status in ("ok", "unsupported"), f"{problem.name}: {verdict.reason}"
