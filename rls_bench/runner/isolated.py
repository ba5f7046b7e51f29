"""Conformance cases checked in a process of their own, which is started anew behind a case that ended it.

A fault on a GPU takes the process's context with it, so that every later call fails as well; a crash or a hang takes
the process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from rls_bench.agreement.conformance import Outcome
from rls_bench.problems.problem import Problem
from rls_bench.runner import messages
from rls_bench.runner.process import Worker, WorkerLost

# A case may compile kernels; on a GPU that takes seconds, for a compiled graph half a minute.
CASE_SECONDS = 180.0
# What comes of a fault on the device, after which nothing works any more in that process.
_FATAL = ("CUDA error", "CUDA driver error", "device-side assert")
_LOST = "its process was lost"


def check(backend: str, problems: Sequence[Problem], deadline: float = math.inf) -> Iterator[Outcome]:
    """The outcome of every problem, in order, as ``conformance.check_case`` gives it.

    A case that kills its process, or isn't done within ``CASE_SECONDS``, has failed; the others go on. What isn't done
    at ``deadline``, on the monotonic clock, has no outcome.
    """
    worker: Worker | None = None
    try:
        for problem in problems:
            worker = worker or Worker(backend)
            outcome = _ask(worker, problem, min(CASE_SECONDS, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                return
            yield outcome
            if outcome.status == "failed" and any(sign in outcome.reason for sign in (*_FATAL, _LOST)):
                worker.stop()
                worker = None
    finally:
        if worker is not None:
            worker.stop()


def _ask(worker: Worker, problem: Problem, seconds: float) -> Outcome:
    try:
        reply = worker.ask(messages.CheckCase(problem), seconds)
    except WorkerLost as lost:
        return Outcome(problem.name, "failed", f"{_LOST}: {lost.reason}")
    assert isinstance(reply, messages.CaseChecked)
    return Outcome(problem.name, reply.status, reply.reason)
