"""A kernel that is quick only on queries that it has seen is found, and none is accused for one slow call."""

from __future__ import annotations

import os
from typing import cast

import cheats
import pytest
import torch
from judged import LocalReferee

from rls_bench.problems.draw import draw, draw_query
from rls_bench.problems.problem import Problem
from rls_bench.referee import Referee, checking, novelty, sealed
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Draw
from rls_bench.referee.operands import Operands
from rls_bench.referee.pool import Pool
from rls_bench.referee.results import Tray

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")


def test_several_times_as_long_is_a_complaint_and_a_little_longer_is_none() -> None:
    assert novelty.complaint(1e6, 2.9e6, "cpu") == ""
    assert novelty.complaint(1e6, 3.1e6, "cpu") == (
        "its results are kept from before, row by row: a call takes 3.1 ms on queries that it never saw, 1 ms on those "
        "that it did"
    )


def test_what_costs_as_much_as_a_call_of_nothing_tells_nothing() -> None:
    assert novelty.complaint(1e3, 20e3, "cpu") == ""
    assert novelty.complaint(1e3, 90e3, "cuda:0") == ""
    assert novelty.complaint(1e3, 90e3, "cpu")


@pytest.mark.parametrize("inputs", ["random", "real"])
def test_queries_apart_are_like_the_problem_s_own(inputs: str) -> None:
    problem = Problem(2, 6, 2, 7, 5, 16, 16, dtype="bfloat16", inputs=inputs)
    alone = draw_query(problem)
    assert alone.dtype == torch.bfloat16
    # The first that are drawn, so that those of the same seed are the same.
    assert torch.equal(alone, draw(problem).query)


def handed(referee: LocalReferee, given: Draw, spoil: float) -> tuple[int, Operands, Tray, Pool]:
    """A tray with the right result on queries apart, times ``spoil``."""
    memory, layout = referee.draw(given)
    operands = Operands(Pool(memory, layout), Contents("seed", 0))
    os.close(memory)
    apart, apart_layout = referee.draw_unseen(given, "secret")
    queries = Pool(apart, apart_layout)
    os.close(apart)
    operands.surprise(queries)
    descriptor = sealed.tray()
    tray = Tray(descriptor)
    tray.lay_out(given.problem, 1)
    tray.put(0, [spoil * cheats.right(operands.inputs)])
    return descriptor, operands, tray, queries


@pytest.mark.parametrize(("spoil", "passes"), [(1.0, True), (1.5, False)])
def test_a_call_on_queries_apart_is_judged_by_what_they_are(spoil: float, passes: bool) -> None:
    referee, given = LocalReferee(), Draw(PROBLEM, "salt")
    descriptor, operands, _, queries = handed(referee, given, spoil)
    assert torch.equal(operands.inputs.query, queries.tensors["query"])
    assert operands.changed() == []
    verdict = referee.judge(given, Contents("seed", 0), descriptor, 0, True, unseen="secret")
    assert verdict.passed == passes, verdict.reason
    # By its own contents it would be wrong, and so it is on others' queries.
    assert not referee.judge(given, Contents("seed", 0), descriptor, 0, True).passed
    assert not referee.judge(given, Contents("seed", 0), descriptor, 0, True, unseen="another").passed
    os.close(descriptor)


def test_queries_apart_that_are_written_to_are_seen_as_changed() -> None:
    descriptor, operands, _, _ = handed(LocalReferee(), Draw(PROBLEM, "salt"), 1.0)
    os.close(descriptor)
    operands.inputs.query[0, 1, 3, 2] += 1
    assert operands.changed() == ["query"]
    operands.lay(Contents("seed", 1))
    assert operands.changed() == []


@pytest.mark.parametrize(
    ("slow", "status"), [(1, "ok"), (novelty.MOST_TRIES - 1, "ok"), (novelty.MOST_TRIES, "failed")]
)
def test_only_who_is_slow_in_every_try_has_kept_results(
    slow: int, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that takes the cores for a moment makes a call slow, too."""
    tries = []

    def slowed(*given: object) -> tuple[object, int, int]:
        result, unseen_ns, seen_ns = surprise(*given)  # type: ignore[arg-type]
        tries.append(1)
        return result, unseen_ns + (10**9 if len(tries) <= slow else -unseen_ns + 1), seen_ns

    surprise = checking.surprise
    monkeypatch.setattr(checking, "surprise", slowed)
    verdict = checking.check(cheats.RIGHT, PROBLEM, cast(Referee, LocalReferee()))
    assert verdict.status == status, verdict.reason
    assert len(tries) == max(3, min(slow + 1, novelty.MOST_TRIES))


def test_hundreds_of_checks_leave_few_descriptors_open() -> None:
    """Whoever asks one referee again and again, as a reward loop does, must not run out of them."""
    referee, before = LocalReferee(), len(os.listdir("/proc/self/fd"))
    for number in range(300):
        given = Draw(PROBLEM, f"salt {number}")
        for memory, _ in (referee.draw(given), *(referee.draw_unseen(given, f"{salt}") for salt in range(3))):
            os.close(memory)
    assert len(os.listdir("/proc/self/fd")) - before <= 8 * 64
