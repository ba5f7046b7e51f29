"""Who works while it isn't its turn, and that nothing of a worker's tree outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rls_bench.runner import kin
from rls_bench.runner.quiet import Quiet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SPINS = "while True: pass"
SLEEPS = "import time; time.sleep(60)"
# Forked twice, in a session of its own, as a daemon is; its ancestor takes it in.
DAEMON = f"""
import os, time, ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {SPINS}
    os._exit(0)
os.wait()
time.sleep(60)
"""


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def test_one_that_spins_between_its_turns_is_found_and_one_that_sleeps_is_not() -> None:
    spins, sleeps = started(SPINS), started(SLEEPS)
    try:
        quiet = Quiet({"spins": spins.pid, "sleeps": sleeps.pid})
        deadline, found = time.monotonic() + 20, None
        while found is None and time.monotonic() < deadline:
            time.sleep(0.02)
            found = quiet.disturber("sleeps")
        assert found == "spins"
    finally:
        for process in (spins, sleeps):
            process.kill()
            process.wait()


def test_what_is_used_in_a_turn_of_its_own_is_nobody_s_business() -> None:
    spins = started(SPINS)
    try:
        quiet = Quiet({"spins": spins.pid})
        for _ in range(10):
            time.sleep(0.02)
            assert quiet.disturber("spins") is None
    finally:
        spins.kill()
        spins.wait()


def test_a_daemon_counts_to_the_tree_that_it_left_and_ends_with_it() -> None:
    parent = started(DAEMON)
    try:
        deadline = time.monotonic() + 20
        while not (tree := kin.descendants(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        before = kin.cpu_ns(parent.pid)
        deadline = time.monotonic() + 20
        while kin.cpu_ns(parent.pid) - before < 10_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert kin.cpu_ns(parent.pid) - before >= 10_000_000
        tree = kin.descendants(parent.pid)
        kin.end(parent.pid)
        assert tree
        assert all(kin.state(pid) in ("", "Z", "X") for pid in tree)
    finally:
        parent.wait()


def test_a_stopped_process_is_seen_as_such() -> None:
    process = started(SLEEPS)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while kin.state(process.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kin.state(process.pid) == "T"
    finally:
        process.kill()
        process.wait()
    assert kin.state(process.pid) == ""
    with pytest.raises(OSError, match="Invalid argument"):
        kin.clock_ns(process.pid)
