"""Backends by name. Ours and third parties' alike are entry points in the group ``rls_bench.backends``."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rls_bench.backends.asking import last_words
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


def check_name(name: str) -> None:
    """Raise UnknownBackend unless ``name`` is registered or reads ``module:attribute``; loads nothing."""
    if name not in _entries() and ":" not in name:
        raise UnknownBackend(f"backend: wanted one of {', '.join(names())}, or MODULE:ATTRIBUTE; got {name!r}")


def get(name: str) -> Backend:
    """The backend called ``name``, loading its module on first use; ``module:attribute`` names one not registered.

    Raises UnknownBackend for a name that nobody registered, BackendUnavailable where its module cannot be imported or
    holds no Backend there; never another backend.
    """
    if name not in LOADED:
        found = find(name)
        if not isinstance(found, Backend):
            raise BackendUnavailable(
                f"backend {name!r}: wanted an instance of a Backend subclass; got {type(found).__name__}"
            )
        LOADED[name] = found
    return LOADED[name]


def find(name: str) -> Any:
    """What stands where ``name`` says, a Backend or not; raises as ``get`` does, with the module's last words."""
    check_name(name)
    place = _entries()[name].value if name in _entries() else name
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    # A module may raise anything as it is imported, and may even exit.
    except (Exception, SystemExit) as error:
        raise BackendUnavailable(f"backend {name!r}: {place} cannot be imported: {last_words(error)}") from error
