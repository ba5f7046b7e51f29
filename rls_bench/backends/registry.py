"""Backends by name. Ours and third parties' alike are entry points in the group ``rls_bench.backends``."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from rls_bench.backends import sources
from rls_bench.backends.interface import Backend
from rls_bench.backends.words import told
from rls_bench.errors import BackendUnavailable, UnknownBackend

GROUP = "rls_bench.backends"
# Every backend that has been asked for so far, by name.
LOADED: dict[str, Backend] = {}


@cache
def _entries() -> dict[str, list[EntryPoint]]:
    """By name, one for each place that it stands for: two packages may have taken the same name."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for entry in (*_of_checkout(), *entry_points(group=GROUP)):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: list(places.values()) for name, places in found.items()}


def _of_checkout() -> list[EntryPoint]:
    """Our own, as the pyproject.toml of a checkout has them: one that was never installed has no others."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if not project.is_file():
        return []
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    groups = tomllib.loads(project.read_text()).get("project", {}).get("entry-points", {})
    return [EntryPoint(name, place, GROUP) for name, place in groups.get(GROUP, {}).items()]


def names() -> list[str]:
    """Names of every registered backend, sorted; loads none of them."""
    return sorted(_entries())


def check_name(name: str) -> None:
    """Raise UnknownBackend unless ``name`` is registered or reads ``module:attribute``; loads nothing.

    Either may be followed by ``@`` and the tree of sources to load it from (see sources.py).
    """
    name = name.partition(sources.MARK)[0]
    if name not in _entries() and ":" not in name:
        raise UnknownBackend(f"backend: wanted one of {', '.join(names())}, or MODULE:ATTRIBUTE; got {name!r}")


def get(name: str) -> Backend:
    """The backend called ``name``, loading its module on first use; ``module:attribute`` names one not registered,
    a Backend or a plain function (see function.py).

    Raises UnknownBackend for a name that nobody registered, BackendUnavailable where its module cannot be imported or
    holds neither there; never another backend.
    """
    if name not in LOADED:
        LOADED[name] = _as_backend(find(name), name)
    return LOADED[name]


def _as_backend(found: Any, name: str) -> Backend:
    if isinstance(found, Backend):
        return found
    if callable(found) and not isinstance(found, type):
        # Whoever only asks for names needs no torch.
        from rls_bench.backends.function import Function

        return Function(found, name.partition(sources.MARK)[0])
    raise BackendUnavailable(
        f"backend {name!r}: wanted an instance of a Backend subclass; got {type(found).__name__}; "
        "a plain function (query, key, value, bias, strength, *, scale, is_causal, …) would do, too"
    )


def find(name: str) -> Any:
    """What stands where ``name`` says, a Backend or not; raises as ``get`` does, with the module's last words."""
    check_name(name)
    name, _, tree = name.partition(sources.MARK)
    if tree:
        sources.enter(tree)
    places = [entry.value for entry in _entries()[name]] if name in _entries() else [name]
    if len(places) > 1:
        raise BackendUnavailable(
            f"backend {name!r}: two packages registered the name, as {' and as '.join(places)}; uninstall one, or "
            "ask for either as MODULE:ATTRIBUTE"
        )
    (place,) = places
    if name not in _entries() and os.getcwd() not in sys.path:
        # A kernel under work lies in the working directory more often than in an installed package.
        sys.path.insert(0, os.getcwd())
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    # A module may raise anything as it is imported, and may even exit.
    except (Exception, SystemExit) as error:
        raise BackendUnavailable(f"backend {name!r}: {place} cannot be imported: {told(error)}") from error
