"""When a process was started, on the clock that deadlines are told by; and that it ends with who started it."""

from __future__ import annotations

import os
import signal
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


STARTS = """
import subprocess, sys
from rls_bench.runner import kin
sleep = ["sleep", "600"]
started = [subprocess.Popen(line, stdout=subprocess.DEVNULL) for line in (sleep, kin.mortal(sleep))]
print(*(process.pid for process in started), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it there alone")
def test_what_is_mortal_ends_with_who_started_it() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    plain, mortal = map(int, starter.stdout.readline().split())
    try:
        starter.kill()
        starter.wait()
        until = time.monotonic() + 60
        while kin.state(mortal) not in ("", "Z") and time.monotonic() < until:
            time.sleep(0.01)
        assert kin.state(mortal) in ("", "Z")
        assert kin.state(plain) not in ("", "Z")
    finally:
        os.kill(plain, signal.SIGKILL)
        starter.stdin.close()  # type: ignore[union-attr]
        starter.stdout.close()


def test_what_is_mortal_is_the_command_that_was_given() -> None:
    line = kin.mortal([sys.executable, "-c", "import sys; print(sys.argv); sys.exit(3)", "a b"])
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("['-c', 'a b']\n", 3)
