"""When a process was started, on the clock that deadlines are told by."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from rls_bench.runner import kin

# The system counts starts in hundredths of a second.
TICK = 0.01


@pytest.mark.skipif(sys.platform != "linux", reason="nobody tells elsewhere")
def test_a_process_started_when_it_was_called_however_late_that_is_asked() -> None:
    before = time.monotonic()
    process = subprocess.Popen(["sleep", "600"])
    after = time.monotonic()
    try:
        time.sleep(0.2)
        assert before - 2 * TICK <= kin.started(process.pid) <= after + 2 * TICK
    finally:
        process.kill()
        process.wait()


def test_what_is_not_there_started_now() -> None:
    before = time.monotonic()
    assert before <= kin.started(2**31 - 1) <= time.monotonic()
