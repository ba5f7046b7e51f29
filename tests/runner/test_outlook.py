"""How many launches share a run's time, as its first checks show how far off the forecast was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.runner import outlook as subject
from rls_bench.runner.board import Board
from rls_bench.runner.forecast import Forecast, Slice
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.limit import Limit
from rls_bench.runner.outlook import Outlook
from rls_bench.runner.plan import Plan

PROBLEMS = [Problem(1, 2, 2, 64, 64, 16, 16), Problem(1, 2, 2, 1, 4096, 64, 64)]
START_SECONDS = 5


class Run:
    """Three launches in 180 s on a clock that stands until it is told to go on.

    ``checks``: what one is expected to take in a problem's first launch, and in a later one.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        to_build: dict[str, list[dict[str, float]]] | None = None,
        problems: Sequence[Problem] = PROBLEMS,
        checks: tuple[float, float] = (40, 40),
        compiling: float = 0,
    ) -> None:
        self.seconds = 0.0
        once, later = (Slice(compiling, check=check, turns=30, least=5) for check in checks)
        monkeypatch.setattr(subject.remembered, "load", dict)
        monkeypatch.setattr(subject, "by_arithmetic", lambda *_, again: later if again else once)
        plan = Plan(list(problems), ["cpu"], budget_seconds=180, limit_seconds=180, aa=False)
        self.ledger = Ledger(180, plan.launches, len(problems), self.now)
        self.outlook = Outlook(plan, self.ledger, Limit(180, self.now))
        self.begin_launch()
        crew = SimpleNamespace(
            pids=lambda: {"cpu": 1},
            measurable={"cpu": SimpleNamespace(yes=True)},
            slow=(),
            to_build=to_build or {},
        )
        self.title = self.outlook.foresee(Board(plan), cast(Any, crew))

    @property
    def forecast(self) -> Forecast:
        assert self.outlook._forecast is not None
        return self.outlook._forecast

    def now(self) -> float:
        return self.seconds

    def begin_launch(self) -> None:
        self.ledger.begin_launch()
        with self.ledger.starting():
            self.seconds += START_SECONDS

    def turns_after_checks(self, index: int, launch: int, check_seconds: float, compile_seconds: float = 0.0) -> float:
        """Go through one problem, and use its turns' time up; what that was."""
        with self.outlook.slice(index, launch, again=launch > 1):
            with self.ledger.checking(thorough=launch == 1):
                self.seconds += compile_seconds + check_seconds
                self.ledger.checked(0, compile_seconds)
            self.outlook.share_anew(launch, index)
            turns = self.ledger.slice_deadline() - self.seconds
            self.seconds += turns
        self.ledger.slice_done()
        return turns


def test_checks_as_dear_as_expected_leave_out_the_second_problem_and_no_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(monkeypatch, checks=(60, 20))
    assert f"leaves out {PROBLEMS[1].title};" in run.title
    turns = [run.turns_after_checks(0, 1, 60)]
    assert not run.outlook.has_room(1, again=False)
    for launch in (2, 3):
        assert run.outlook.has_room_for_launch([0, 1])
        run.begin_launch()
        turns.append(run.turns_after_checks(0, launch, 20))
    assert min(turns) > 20
    assert run.seconds == pytest.approx(180)
    # With nobody left who wants another launch, one is better than none.
    run.seconds = 100
    assert run.outlook.has_room_for_launch([1])
    assert run.outlook.has_room(1, again=False)


def test_compiling_that_takes_longer_than_expected_costs_a_problem_and_no_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What compiled is kept, so that a second launch is cheap: turns must not use its time up."""
    run = Run(monkeypatch, problems=[*PROBLEMS, replace(PROBLEMS[0], key_length=96)], checks=(20, 7))
    assert "leaves out" not in run.title
    turns = [run.turns_after_checks(0, 1, 20, compile_seconds=90)]
    assert run.outlook.has_room(1, again=False)
    turns.append(run.turns_after_checks(1, 1, 20))
    assert not run.outlook.has_room(2, again=False)
    assert run.outlook.has_room_for_launch([0, 1, 2])
    run.begin_launch()
    for index in (0, 1):
        assert run.outlook.has_room(index, again=True)
        turns.append(run.turns_after_checks(index, 2, 7))
    assert min(turns) > 3
    assert run.seconds == pytest.approx(180)


def test_with_no_room_for_any_interval_each_problem_that_fits_has_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, checks=(50, 50))
    run.turns_after_checks(0, 1, 50)
    run.seconds = 130
    assert not run.outlook.has_room_for_launch([0])
    assert not run.outlook.has_room(1, again=False)
    run.seconds = 124
    assert run.outlook.has_room(1, again=False)


def test_a_look_is_for_the_first_problem_of_a_run_with_long_to_compile_and_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not Run(monkeypatch).outlook.is_worth_a_look(0)
    # What is kept for later processes is built beside the others' checks, and a look doesn't wait for it less.
    assert not Run(monkeypatch, {"cpu": [{"base": 60.0}, {}]}).outlook.is_worth_a_look(0)
    run = Run(monkeypatch, compiling=25)
    assert run.outlook.is_worth_a_look(0)
    run.seconds = 60
    assert not run.outlook.is_worth_a_look(0)
    run.seconds = 5
    run.turns_after_checks(0, 1, 10)
    assert not run.outlook.is_worth_a_look(1)


def test_what_must_be_built_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    unbuilt = {"base": 2.0, "prefill": 5.0}
    assert "compiling 0 s" in Run(monkeypatch).title
    run = Run(monkeypatch, {"cpu": [unbuilt, {**unbuilt, "decode": 4.0}]}, PROBLEMS)
    assert [each.compile for each in run.forecast.first] == [7.0, 4.0]
    assert [each.compile for each in run.forecast.later] == [0.0, 0.0]


def test_cheaper_checks_leave_turns_to_the_launches_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    turns = []
    for launch in (1, 2, 3):
        if launch > 1:
            assert run.outlook.has_room_for_launch([0, 1])
            run.begin_launch()
        turns += [run.turns_after_checks(index, launch, 10) for index in (0, 1)]
    assert len(turns) == 6
    assert min(turns) > 10
    assert run.seconds == pytest.approx(180)


def test_a_launch_goes_on_with_the_problems_that_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    run.turns_after_checks(0, 1, 2)
    run.turns_after_checks(1, 1, 30)
    run.seconds = 163
    assert run.outlook.has_room_for_launch([0, 1])
    assert run.outlook.has_room(0, again=True)
    assert not run.outlook.has_room(1, again=True)
    run.seconds = 174
    assert not run.outlook.has_room_for_launch([0, 1])


def test_hours_of_compiling_that_come_to_nothing_leave_no_problem_of_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(monkeypatch, {"cpu": [{"first": 3600.0}, {"second": 7200.0}]}, checks=(10, 5))
    assert "leaves out" in run.title
    run.turns_after_checks(0, 1, 10)
    assert run.outlook.has_room(1, again=False)
    run.turns_after_checks(1, 1, 10)
    assert run.outlook.has_room_for_launch([0, 1])
