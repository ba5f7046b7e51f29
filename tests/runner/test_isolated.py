"""A case that ends its process, or the device's context, costs itself alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rls_bench.agreement.conformance import Outcome
from rls_bench.problems.problem import Problem
from rls_bench.runner import isolated, messages
from rls_bench.runner.process import WorkerLost

PROBLEMS = [Problem(1, 1, 1, 4, 4, 16, 16, name=name) for name in ("one", "two", "three")]
FAULT = "AcceleratorError: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("second", "reason", "started"),
    [
        (messages.CaseChecked("wrong", "error is 7 × the floor"), "error is 7 × the floor", 1),
        (messages.CaseChecked("failed", FAULT), FAULT, 2),
        (WorkerLost("crashed", "died of SIGSEGV"), "its process was lost: died of SIGSEGV", 2),
        (WorkerLost("timeout", "no answer within 9 s"), "its process was lost: no answer within 9 s", 2),
    ],
)
def test_after_a_fault_the_next_case_has_a_fresh_process(
    second: Any, reason: str, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    class FakeWorker:
        def __init__(self, backend: str) -> None:
            log.append("start")

        def ask(self, request: messages.CheckCase, seconds: float) -> messages.CaseChecked:
            if request.problem.name == "two":
                if isinstance(second, Exception):
                    raise second
                return second  # type: ignore[no-any-return]
            return messages.CaseChecked("ok")

        def stop(self) -> None:
            log.append("stop")

    monkeypatch.setattr(isolated, "Worker", FakeWorker)
    outcomes = list(isolated.check("eager", PROBLEMS))
    assert [outcome.status for outcome in outcomes] == ["ok", outcomes[1].status, "ok"]
    assert outcomes[1] == Outcome("two", "wrong" if started == 1 else "failed", reason)
    assert log.count("start") == log.count("stop") == started
    # What the deadline cuts off is no failure.
    assert list(isolated.check("eager", PROBLEMS, deadline=time.monotonic())) == []
