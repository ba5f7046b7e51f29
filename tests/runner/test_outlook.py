"""How many launches share a run's time, as its first checks show how far off the forecast was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.runner import outlook as subject
from rls_bench.runner.board import Board
from rls_bench.runner.forecast import Slice
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.limit import Limit
from rls_bench.runner.outlook import Outlook
from rls_bench.runner.plan import Plan

PROBLEMS = [Problem(1, 2, 2, 64, 64, 16, 16), Problem(1, 2, 2, 1, 4096, 64, 64)]
START_SECONDS = 5


class Run:
    """Three launches in 180 s on a clock that stands until it is told to go on; each check is expected to take 40 s."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        expected = Slice(check=40, turns=30, least=5)
        monkeypatch.setattr(subject.remembered, "load", dict)
        monkeypatch.setattr(subject, "by_arithmetic", lambda *_, **__: expected)
        plan = Plan(PROBLEMS, ["cpu"], budget_seconds=180, limit_seconds=180, aa=False)
        self.ledger = Ledger(180, plan.launches, len(PROBLEMS), self.now)
        self.outlook = Outlook(plan, self.ledger, Limit(180, self.now))
        self.begin_launch()
        crew = SimpleNamespace(pids=lambda: {"cpu": 1}, measurable={"cpu": SimpleNamespace(yes=True)}, slow=())
        self.title = self.outlook.foresee(Board(plan), cast(Any, crew))

    def now(self) -> float:
        return self.seconds

    def begin_launch(self) -> None:
        self.ledger.begin_launch()
        with self.ledger.starting():
            self.seconds += START_SECONDS

    def turns_after_checks(self, index: int, launch: int, check_seconds: float) -> float:
        """Go through one problem, and use its turns' time up; what that was."""
        with self.outlook.slice(index, launch, again=launch > 1):
            with self.ledger.checking(thorough=launch == 1):
                self.seconds += check_seconds
            self.outlook.share_anew(launch, index)
            turns = self.ledger.slice_deadline() - self.seconds
            self.seconds += turns
        self.ledger.slice_done()
        return turns


def test_checks_as_dear_as_expected_leave_no_room_for_another_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    assert "leaves out launches 2 to 3" in run.title
    run.turns_after_checks(0, 1, 40)
    run.turns_after_checks(1, 1, 40)
    assert not run.outlook.has_room_for_launch([0, 1])


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
