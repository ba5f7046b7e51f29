"""Dispatch inside torch.compile; imported only there, since it loads torch's compiler.

The registry and the policy are entry points and files, nothing that a trace could hold: what they say of a class of
problems is a constant of the trace. Lengths stay symbols, so that one graph serves all of them that have one answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.policy import lookup as policies
from rls_bench.problems.problem import Problem


def resolve(name: str, policy: str | Path | None, problem: Problem) -> Backend:
    """As ``dispatch.resolve``, traced; raises BackendUnsupported for what cannot be traced, too."""
    if name != "auto":
        _must_be_traceable(name)
        backend = registry.LOADED[name]
        support = backend.supports(problem)
        if not support:
            # Its sizes are symbols, which an error's text would turn into constants.
            raise BackendUnsupported(f"backend {name!r} cannot do this call: {support.reason}")
        return backend
    for candidate in (*_advised(policy, problem), *_built_in(problem.device)):
        backend = registry.LOADED[candidate]
        if backend.traceable and backend.supports(problem):
            return backend
    raise BackendUnsupported("no built-in backend that torch.compile can trace does this call")


def _advised(policy: str | Path | None, problem: Problem) -> tuple[str, ...]:
    """What the policy advises, in order; nothing where there is none, or where it says nothing of such problems."""
    if not _is_found(policy):
        return ()
    is_square = problem.query_length == problem.key_length
    query_length = None if is_square else _constant(problem.query_length)
    shape = (_constant(getattr(problem, name)) for name in policies.SHAPE)
    ends, advised = _by_length(policy, query_length, *shape)
    for end, names in zip(ends, advised, strict=True):
        if problem.key_length <= end:
            return names
    return ()


def _constant(value: Any) -> Any:
    """Itself, but a number where it is a symbol: a policy may say another thing of another batch or head dim."""
    # How long a range is, a trace knows for one size alone.
    return len(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value


@torch.compiler.assume_constant_result
def _must_be_traceable(name: str) -> None:
    backend = registry.get(name)
    if not (available := backend.available()):
        raise BackendUnavailable(f"backend {name!r}: {available.reason}")
    if not backend.traceable:
        raise BackendUnsupported(f"backend {name!r} cannot be traced: call it outside torch.compile")


@torch.compiler.assume_constant_result
def _is_found(policy: str | Path | None) -> bool:
    return policies.is_found(policy)


@torch.compiler.assume_constant_result
def _built_in(device: str) -> tuple[str, ...]:
    return policies.built_in(device)


@torch.compiler.assume_constant_result
def _by_length(policy: str | Path | None, query_length: int | None, *shape: Any) -> Any:
    named = dict(zip(policies.SHAPE, shape, strict=True))
    regime, is_causal = named.pop("regime"), named.pop("masks_causally")
    # Any lengths of this class will do: the answer is that for every key length.
    if query_length is None:
        query_length, key_length = 17, 17
    elif regime == "decode":
        key_length = 17
    else:
        key_length = query_length + 1 if query_length != 16 else 15
    problem = Problem(query_length=query_length, key_length=key_length, is_causal=is_causal, **named)
    return policies.by_length(problem, policy)
