"""Which threads an open context steers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakSet

from rls_bench.integrations.control import Control

# The contexts that this thread, task or copied context is in, the innermost last.
_HERE: ContextVar[tuple[Steering, ...]] = ContextVar("rls_bench_steering", default=())


class Steering:
    """A context that is open: its control, and which threads it reaches.

    It steers the thread that opened it, and what runs in copies of that thread's context (tasks, ``to_thread``). Opened
    by the main thread, as by a server, it also steers threads that were started since. Calls of other threads stay
    unsteered, unless they enter ``joined``.
    """

    def __init__(self, control: Control) -> None:
        self.control = control
        opened_by_main = threading.current_thread() is threading.main_thread()
        self._strangers = WeakSet(threading.enumerate()) if opened_by_main else None

    @contextmanager
    def joined(self) -> Iterator[Control]:
        """This thread's calls are steered, too, while the context is open."""
        before = _HERE.get()
        _HERE.set((*before, self))
        try:
            yield self.control
        finally:
            _HERE.set(tuple(one for one in _HERE.get() if one is not self))

    def reaches_new_threads(self) -> bool:
        """Whether this thread was started since, by a context of the main thread."""
        return self._strangers is not None and threading.current_thread() not in self._strangers


def innermost(opened: Collection[Steering]) -> Steering | None:
    """That of the ``opened`` contexts of a model which steers calls of this thread, or None."""
    for steering in reversed(_HERE.get()):
        if steering in opened:
            return steering
    return next((steering for steering in opened if steering.reaches_new_threads()), None)
