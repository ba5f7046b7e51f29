"""Which backend does a problem: the one asked for, or the policy's choice."""

from __future__ import annotations

from rls_bench import policy
from rls_bench.backends import registry
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problem import Problem


def resolve(name: str, problem: Problem) -> str:
    """The name of the backend that does ``problem``, loaded; "auto" asks the policy.

    Raises UnknownBackend, BackendUnavailable or BackendUnsupported, never another backend.
    """
    if name == "auto":
        name = policy.pick(problem)
    backend = registry.get(name)
    if not (available := backend.available()):
        raise BackendUnavailable(f"backend {name!r}: {available.reason}")
    if not (support := backend.supports(problem)):
        raise BackendUnsupported(f"backend {name!r} cannot do {problem.title}: {support.reason}")
    return name
