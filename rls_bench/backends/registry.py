"""Backends by name. Ours and third parties' alike are entry points in the group ``rls_bench.backends``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from rls_bench.backends.interface import Backend
from rls_bench.errors import BackendUnavailable, UnknownBackend

GROUP = "rls_bench.backends"
# Every backend that has been asked for so far, by name.
LOADED: dict[str, Backend] = {}


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Names of every registered backend, sorted; loads none of them."""
    return sorted(_entries())


def get(name: str) -> Backend:
    """The backend called ``name``, loading its module on first use.

    Raises UnknownBackend for a name that nobody registered, BackendUnavailable where its module cannot be
    imported; never another backend.
    """
    if name not in LOADED:
        LOADED[name] = _load(name)
    return LOADED[name]


def _load(name: str) -> Backend:
    entry = _entries().get(name)
    if entry is None:
        raise UnknownBackend(f"backend: wanted one of {', '.join(names())}; got {name!r}")
    try:
        return cast(Backend, entry.load())
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(f"backend {name!r}: {entry.value} cannot be imported: {error}") from error
