"""When a run has to be over: at a time, or as soon as a signal asks for it. Every wait of the coordinator asks here."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# How long a wait may go without asking.
LOOK_SECONDS = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class OutOfTime(Exception):
    """The time that the run was given is over."""


class Limit:
    """Ends waits, and with them the run, ``seconds`` from now on; signals are noted, and end them just so.

    A signal raises nothing where it happens to arrive, so that no clean-up is ever cut in two.
    """

    def __init__(self, seconds: float = math.inf, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + seconds
        self._asked = False

    def left(self) -> float:
        """Seconds until the time is over, infinite without an end."""
        return self._end - self._now()

    def check(self) -> None:
        """Raises KeyboardInterrupt where a signal has asked for the end, OutOfTime where the time is over."""
        if self._asked:
            raise KeyboardInterrupt
        if self.left() <= 0:
            raise OutOfTime

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the run goes on; raises as ``check`` does."""
        end = self._now() + seconds
        while (left := end - self._now()) > 0:
            self.check()
            time.sleep(min(left, LOOK_SECONDS))
        self.check()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within it, Ctrl-C and the signals that ask this process to end do so at the next wait."""
        before = {}
        for number in _SIGNALS:
            # Only a program's main thread may set handlers.
            try:
                before[number] = signal.signal(number, self._ask)
            except ValueError:
                break
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
