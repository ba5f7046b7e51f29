"""Whether the harness's own code, in a backend's process, is still what was loaded.

Mistakes and simple tricks are seen so. Code that takes pains to hide is not, which is why nothing hangs on this alone:
see "What is guarded, and what isn't" in the documentation.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

_ROOT = "rls_bench."


class Intact:
    """Remembers the functions of the harness's modules that are loaded now, less the backends'."""

    def __init__(self) -> None:
        self._modules = {
            name: module
            for name, module in sys.modules.items()
            if name.startswith(_ROOT) and not name.startswith(f"{_ROOT}backends.")
        }
        self._before = self._marks()

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
            marks[full] = id(value), id(value.__code__), value.__defaults__ and tuple(map(id, value.__defaults__))
        elif isinstance(value, type) and isinstance(owner, ModuleType):
            marks[full] = (id(value),)
            if value.__module__ == owner.__name__:
                _mark(full, value, marks)
        elif isinstance(value, (staticmethod, classmethod, property)) or callable(value):
            marks[full] = (id(value),)
