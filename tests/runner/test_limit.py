"""Waits end with the time or with a signal, and a signal alone cuts nothing in two."""

from __future__ import annotations

import os
import signal
from itertools import count

import pytest

from rls_bench.runner.limit import Limit, OutOfTime


def test_waits_end_with_the_time() -> None:
    clock = count()
    limit = Limit(3.0, now=lambda: float(next(clock)))
    limit.check()
    with pytest.raises(OutOfTime):
        limit.sleep(100.0)


def test_without_an_end_nothing_is_over() -> None:
    Limit().check()
    assert Limit().left() == float("inf")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_next_wait_and_nothing_else(number: signal.Signals) -> None:
    limit, before = Limit(), signal.getsignal(number)
    with limit.signals():
        os.kill(os.getpid(), number)
        # A clean-up that goes on here is not interrupted, by a second one neither.
        os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            limit.check()
    assert signal.getsignal(number) == before
