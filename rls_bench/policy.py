"""Which backend for which problem."""

from __future__ import annotations

from rls_bench.backends import registry
from rls_bench.errors import BackendUnsupported
from rls_bench.problem import Problem

# Conservative: what torch itself ships and pins, the most general last.
_PREFERENCE = {"cpu": ("sdpa-cpu", "sdpa-math", "eager"), "cuda": ("keyfold", "sdpa-efficient", "sdpa-math", "eager")}


def pick(problem: Problem) -> str:
    """The backend that ``backend="auto"`` uses for ``problem``."""
    for name in _PREFERENCE.get(problem.device, ("eager",)):
        backend = registry.get(name)
        if backend.available() and backend.supports(problem):
            return name
    raise BackendUnsupported(f"no built-in backend does {problem.title}")
