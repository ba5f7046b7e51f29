"""Every cheat is caught by the guards alone, and what is right, though unusual, is not accused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import cheats
import cheats_at_the_harness
import cheats_in_figures
import pytest
from cheats import RIGHT, TRANSPOSED, Trick
from judged import LocalReferee

from rls_bench.agreement.conformance import CASES
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.problems.problem import Problem
from rls_bench.referee import Referee, check

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
STATISTICS = replace(PROBLEM, return_stats=True)
CHEATS: dict[str, Trick] = cheats.CHEATS | cheats_in_figures.CHEATS | cheats_at_the_harness.CHEATS


@pytest.fixture(scope="module")
def referee() -> Referee:
    return cast(Referee, LocalReferee())


# Torch loads its compiler for it.
SLOW = "put_off_by_a_dispatcher_left_on"


@pytest.mark.parametrize(
    "name", [*(name for name in CHEATS if name != SLOW), pytest.param(SLOW, marks=pytest.mark.slow)]
)
def test_a_cheat_is_caught(name: str, referee: Referee) -> None:
    cheat = CHEATS[name]
    try:
        verdict = check(cheat, replace(PROBLEM, **cheat.asks), referee)
    finally:
        cheats_at_the_harness.undo()
    assert verdict.status == cheat.word, verdict
    assert verdict.reason
    assert "\n" not in verdict.reason


@pytest.mark.parametrize(
    "problem",
    [PROBLEM, STATISTICS, replace(PROBLEM, dtype="bfloat16", strength_layout="bhq", is_causal=True)],
    ids=str,
)
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


def test_which_ones_passed_before_is_told_of_cheats_that_there_are() -> None:
    assert cheats.CHEATS.keys() > cheats.PASSED_BEFORE


def test_what_was_packed_for_another_set_of_inputs_is_told_as_such(referee: Referee) -> None:
    assert check(CHEATS["packed_by_shape"], PROBLEM, referee).reason.startswith("on a second set of inputs, with keys")


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
