"""Questions to a backend that may be anybody's: whatever it does instead of answering is a no, with its last words."""

from __future__ import annotations

from collections.abc import Callable

from rls_bench.backends.interface import Backend, Support, no
from rls_bench.backends.words import told
from rls_bench.problems.problem import Problem


def available(backend: Backend) -> Support:
    """Whether this machine has what the backend needs."""
    return _answer("available", backend.available)


def proven(backend: Backend) -> Support:
    """Whether it truly works here; may compile, and try what was compiled."""
    asked = "available" if type(backend).proven is Backend.proven else "proven"
    return _answer(asked, backend.proven)


def measurable(backend: Backend) -> Support:
    """Whether a latency taken here means anything."""
    return _answer("measurable", backend.measurable)


def supports(backend: Backend, problem: Problem) -> Support:
    """Whether the backend can do ``problem``."""
    return _answer("supports", lambda: backend.supports(problem))


def _answer(question: str, ask: Callable[[], Support]) -> Support:
    try:
        answer = ask()
    # A plugin that exits must not take the program along.
    except (Exception, SystemExit) as error:
        return no(f"its {question}() failed: {told(error)}")
    return answer if isinstance(answer, Support) else no(f"its {question}() returned {answer!r}; wanted a Support")
