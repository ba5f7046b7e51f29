"""Which backend does a problem: the one asked for, or the policy's choice."""

from __future__ import annotations

from pathlib import Path

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.policy import lookup as policies
from rls_bench.problems.problem import Problem

# Named backends that were found available: asking again (for a compiler, a driver) would cost a decoding step more than
# all else that a call does before its kernel. "auto" asks once, too.
_AVAILABLE: set[Backend] = set()


def resolve(name: str, problem: Problem, policy: str | Path | None = None, *, traced: bool = False) -> str:
    """The name of the backend that does ``problem``, loaded; "auto" asks the policy, ``policy`` before any other.

    ``traced`` keeps "auto" to what torch.compile can take in.

    Raises UnknownBackend, BackendUnavailable or BackendUnsupported, never another backend.
    """
    if name == "auto":
        # What the policy picks was asked already.
        return policies.pick(problem, policy, traced=traced)
    backend = registry.get(name)
    if backend not in _AVAILABLE:
        if not (available := backend.available()):
            raise BackendUnavailable(f"backend {name!r}: {available.reason}")
        _AVAILABLE.add(backend)
    if not (support := backend.supports(problem)):
        raise BackendUnsupported(f"backend {name!r} cannot do {problem.title}: {support.reason}")
    return name
