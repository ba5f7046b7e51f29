"""The suite that every backend must pass: ours pass it, and each rule that is broken is noticed by name."""

from __future__ import annotations

from dataclasses import replace

import faulty_backends as faulty
import pytest

from rls_bench.agreement import conformance
from rls_bench.agreement.conformance import CASES, EMPTY_ROW, GARBAGE, SIDE_BY_SIDE
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend

# flex compiles anew for each shape, Triton's interpreter takes minutes: both have agreement tests of their own.
OURS = sorted(set(registry.names()) - {"flex", "triton"})
ALL_CASES = (*CASES, EMPTY_ROW, GARBAGE, SIDE_BY_SIDE)


@pytest.mark.parametrize("name", OURS)
def test_our_backends_conform(name: str) -> None:
    backend = registry.get(name)
    if not backend.available():
        assert backend.available().reason
        return
    assert [outcome for outcome in conformance.check(backend) if not outcome.holds] == []


def test_cases_have_names_of_their_own() -> None:
    names = [problem.name for problem in ALL_CASES]
    assert len(set(names)) == len(names)


def test_a_right_backend_conforms_and_declines_what_it_cannot() -> None:
    outcomes = {outcome.case: outcome for outcome in conformance.check(faulty.RIGHT)}
    assert all(outcome.holds for outcome in outcomes.values())
    assert (outcomes["statistics"].status, outcomes["statistics"].reason) == ("unsupported", "gives no statistics")
    assert len(outcomes) == len(ALL_CASES) + 1


@pytest.mark.parametrize(
    ("backend", "case", "status", "reason"),
    [
        (faulty.ForgetsMask(), "causal", "wrong", "× the floor"),
        (faulty.IgnoresStrengthPerQuery(), "strength per query", "wrong", "× the floor"),
        (faulty.NaNWithoutKeys(), "padded to nothing", "wrong", "not finite"),
        (faulty.SeesPadding(), "padding that holds NaN", "wrong", "not finite"),
        (faulty.SharesScratch(), "two calls side by side", "wrong", "once a second one was prepared"),
        (faulty.KeepsFirstLayersKeys(), "two calls side by side", "wrong", "a launch for layers"),
        (faulty.ChangesInput(), "plain", "wrong", "changed its input query"),
        (faulty.DropsGradient(), "gradients", "wrong", "gradient of bias"),
        (faulty.Raises(), "wide heads", "failed", "RuntimeError: no such tile second line"),
        (faulty.DeclinesInSilence(), "eps", "failed", "wanted the reason in one line"),
        (faulty.DeclinesAll(), "any case at all", "failed", "declined every case"),
        (faulty.Nameless(), "interface", "failed", "name: wanted one line of text; got ''"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Backend) else None,
)
def test_a_broken_rule_is_noticed(backend: Backend, case: str, status: str, reason: str) -> None:
    named = [replace(problem, device="cpu") for problem in ALL_CASES if problem.name == case]
    broken = {outcome.case: outcome for outcome in conformance.check(backend, named or None) if not outcome.holds}
    assert broken[case].status == status
    assert reason in broken[case].reason
    assert "\n" not in broken[case].reason


def test_what_is_no_backend_is_told_by_its_type() -> None:
    outcome = conformance.check_interface(faulty.NO_BACKEND)  # type: ignore[arg-type]
    assert outcome.reason == "wanted an instance of a Backend subclass; got Identity"


def test_one_case_alone() -> None:
    problem = replace(CASES[0], device="cpu")
    assert conformance.check_case(faulty.RIGHT, problem) == conformance.Outcome("plain", "ok")
