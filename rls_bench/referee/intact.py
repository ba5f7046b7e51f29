"""Whether the harness's own code, in a backend's process, is still what was loaded.

Mistakes and simple tricks are seen so. Code that takes pains to hide is not, which is why nothing hangs on this alone:
see "What is guarded, and what isn't" in the documentation.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from rls_bench.timing import clock

_ROOT = "rls_bench."
# What times and judges: here constants and the names of modules stay what they are, too.
_CORE = ("rls_bench.timing.", "rls_bench.referee.", "rls_bench.runner.")
_CONSTANTS = (ModuleType, int, float, str, tuple)


class Intact:
    """Remembers the functions of the harness's modules that are loaded now, less the backends'; and, of those that time
    and judge, the constants."""

    def __init__(self) -> None:
        self._modules = {
            name: module
            for name, module in sys.modules.items()
            if name.startswith(_ROOT) and not name.startswith(f"{_ROOT}backends.")
        }
        self._before = self._marks()

    def fault(self) -> str:
        """What somebody put something of their own in place of, in words, or an empty string."""
        if timers := clock.replaced():
            return f"it put a timer of its own in place of {timers}"
        changed = self.changed()
        return changed and f"it put something of its own in place of {changed}"

    def changed(self) -> str:
        """The names of what was put in place of something else, at most three, or an empty string."""
        now = self._marks()
        found = sorted(name for name, mark in self._before.items() if now.get(name) != mark)
        return ", ".join(found[:3])

    def _marks(self) -> dict[str, tuple[Any, ...]]:
        marks: dict[str, tuple[Any, ...]] = {}
        for name, module in self._modules.items():
            _mark(name, module, marks)
        return marks


def _mark(place: str, owner: ModuleType | type, marks: dict[str, tuple[Any, ...]]) -> None:
    for name, value in vars(owner).items():
        full = f"{place}.{name}"
        if isinstance(value, FunctionType):
            # A function object can stay the same and do something else.
            defaults = *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()
            marks[full] = id(value), id(value.__code__), *map(id, defaults)
        elif isinstance(value, type) and isinstance(owner, ModuleType):
            marks[full] = (id(value),)
            if value.__module__ == owner.__name__:
                _mark(full, value, marks)
        elif isinstance(value, (staticmethod, classmethod, property)) or callable(value) or _is_constant(full, value):
            marks[full] = (id(value),)


def _is_constant(full: str, value: object) -> bool:
    """Whether what has this name is to stay as it is; what Python keeps in names of its own is not ours."""
    is_ours = full.startswith(_CORE) and not full.endswith("__")
    return is_ours and isinstance(value, _CONSTANTS)
