"""The last turn of a launch: who is asked, what it is held against, and what is believed of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement
from rls_bench.referee import novelty
from rls_bench.referee.messages import Draw, Layout
from rls_bench.runner import Plan, messages, run
from rls_bench.runner.cell import Cell
from rls_bench.runner.surprises import Surprises

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
WARM_NS = 1_000_000.0
RIGHT = Agreement(0.0, 1.0, 0.0, passed=True)


class Asked:
    """A course and a crew in one, whose worker takes ``unseen_ns`` on new queries, one after another."""

    def __init__(self, *unseen_ns: int, judged: Agreement = RIGHT, status: str = "ok") -> None:
        self.left = list(unseen_ns)
        self.calls: list[int] = []
        self.salts: list[str] = []
        self.closed: list[tuple[str, str]] = []
        self.limit = SimpleNamespace(check=lambda: None)
        self.ledger = SimpleNamespace(sampled=lambda calls_ns: None)
        self._judged, self._status = judged, status

    def pids(self) -> dict[str, int]:
        return {"quick": 1}

    def seed(self, launch: int, cell: Cell) -> str:
        return f"{launch} {len(self.calls)}"

    def request(self, crew: Any, cell: Cell) -> Draw:
        return Draw(cell.problem, "salt")

    def drawn_unseen(self, request: Draw, salt: str) -> tuple[int, Layout]:
        self.salts.append(salt)
        return os.memfd_create("queries"), Layout(request.problem, 1.0, ())

    def ask(self, label: str, request: messages.Surprise, memory: int) -> messages.Surprised:
        self.calls.append(request.calls)
        if self._status != "ok":
            return messages.Surprised("wrong", "changed its input key")
        return messages.Surprised("ok", unseen_ns=self.left.pop(0), seen_ns=int(WARM_NS) if request.calls else 0)

    def judge(self, crew: Any, cell: Cell, contents: Any, slot: int, unseen: str) -> Agreement:
        assert unseen == self.salts[-1]
        return self._judged

    def close(self, crew: Any, cell: Cell, status: str, reason: str) -> None:
        self.closed.append((status, reason))


def taken(asked: Asked, cell: Cell) -> Asked:
    Surprises(asked).take(asked, 1, [cell])  # type: ignore[arg-type]
    return asked


def cell(warm_ns: float = WARM_NS, problem: Problem = PROBLEM, raced: bool = False) -> Cell:
    return Cell("quick", "quick", 0, problem, ("warm",), samples={"warm": {1: [warm_ns] * 3}}, raced=raced)


def test_who_is_as_quick_on_new_queries_is_asked_once() -> None:
    asked = taken(Asked(1_500_000), cell())
    assert asked.closed == []
    assert asked.calls == [2]


def test_long_calls_need_no_run_up_and_short_ones_get_a_few() -> None:
    assert taken(Asked(30_000_000), cell(30e6)).calls == [0]
    assert taken(Asked(20_000), cell(20e3)).calls == [8]


def test_one_slow_call_is_tried_again_with_care_and_on_other_queries() -> None:
    asked = taken(Asked(9_000_000, 9_000_000, 2_000_000), cell())
    assert asked.closed == []
    assert asked.calls == [2, novelty.CAREFUL_CALLS, novelty.CAREFUL_CALLS]
    assert len(set(asked.salts)) == 3


def test_who_is_slow_on_all_new_queries_has_kept_results() -> None:
    asked = taken(Asked(*[9_000_000] * novelty.MOST_TRIES), cell())
    ((status, reason),) = asked.closed
    assert status == "failed"
    assert "a call takes 9 ms on queries that it never saw, 1 ms on those that it did" in reason
    assert asked.left == []


def test_a_result_that_is_wrong_for_new_queries_is_wrong() -> None:
    wrong = Agreement(1.0, 1e-7, 1e7, passed=False, reason="error is 9 × the floor")
    assert taken(Asked(1_000_000, judged=wrong), cell()).closed == [
        ("wrong", "a call on new queries: error is 9 × the floor")
    ]
    assert taken(Asked(1_000_000, status="wrong"), cell()).closed == [("wrong", "changed its input key")]


@pytest.mark.parametrize("left_out", [cell(raced=True), Cell("quick", "quick", 0, PROBLEM, ("warm",), status="failed")])
def test_who_cannot_win_is_not_asked(left_out: Cell) -> None:
    assert taken(Asked(), left_out).calls == []


@pytest.mark.slow
def test_a_kernel_that_keeps_rows_is_caught_in_a_run(tmp_path: Path) -> None:
    """In as many samples as it takes to have seen all rows; before that it is timed for what they cost."""
    problem = Problem(1, 8, 1, 1, 16384, 16, 16, inputs="random")
    plan = Plan([problem], ["cheats_in_figures:KEPT_HEAD_BY_HEAD", "eager"], launches=3, budget_seconds=30, race=False)
    records = run(plan, tmp_path / "results.jsonl").records
    caught, honest = (next(record for record in records if record.label == label) for label in plan.backends)
    assert caught.status == "failed"
    assert "row by row" in caught.reason
    assert honest.status == "ok"
