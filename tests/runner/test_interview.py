"""What a backend says of itself is taken, or is its own fault."""

from __future__ import annotations

from typing import Any

import pytest

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Support
from rls_bench.problems.problem import Problem
from rls_bench.runner import messages
from rls_bench.runner.interview import introduction

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random")


class Builds(Backend):
    """Says what it was given."""

    name = "builds"
    summary = "a test's"

    def __init__(self, to_build: Any) -> None:
        self._to_build = to_build

    def supports(self, problem: Problem) -> Support:
        return Support(True)

    def to_build(self, problem: Problem) -> Any:
        if isinstance(self._to_build, BaseException):
            raise self._to_build
        return self._to_build


def told(monkeypatch: pytest.MonkeyPatch, to_build: Any) -> messages.Introduction:
    monkeypatch.setattr(registry, "get", lambda name: Builds(to_build))
    return introduction("builds", "", messages.Introduce([PROBLEM, PROBLEM]))


def test_what_is_to_be_built_is_told_for_each_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, {"base": 2}).to_build == [{"base": 2.0}, {"base": 2.0}]


@pytest.mark.parametrize("to_build", [{"base": "long"}, {1: 2.0}, None, 3.0, SystemExit(2)])
def test_an_answer_that_is_none_is_the_backend_s_fault(to_build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = told(monkeypatch, to_build)
    assert reply.available.failed
    assert reply.available.reason.startswith("to_build(): ")
    assert reply.to_build == []
