"""The guards as part of conformance: the same cases' words, but the results judged where no backend is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rls_bench.agreement.conformance import Outcome
from rls_bench.backends.interface import Backend
from rls_bench.problems.problem import Problem
from rls_bench.referee.checking import check
from rls_bench.referee.client import Referee

# What a trick may hang on: the plain call, a dtype with another floor, a mask, statistics.
_NAMES = ("plain", "bfloat16", "causal", "statistics")


def outcomes(backend: Backend, problems: Sequence[Problem], referee: Referee) -> Iterator[Outcome]:
    """How ``backend`` fares before ``referee`` on some of ``problems``, under names such as "plain, guarded"."""
    for problem in problems:
        if problem.name in _NAMES:
            verdict = check(backend, problem, referee)
            status = verdict.status if verdict.status in ("ok", "unsupported", "wrong") else "failed"
            yield Outcome(f"{problem.name}, guarded", status, verdict.reason)
