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


def started(code: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=stdout)


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


def test_a_pool_that_falls_silent_after_its_turns_is_no_disturber_however_many_those_are() -> None:
    # As OpenMP's threads do after a call: it works for a while in others' turns, and then sleeps.
    works = f"import time; end = time.process_time() + 0.12\nwhile time.process_time() < end: pass\n{SLEEPS}"
    pool, other = started(works), started(SLEEPS)
    try:
        quiet = Quiet({"pool": pool.pid, "other": other.pid})
        assert quiet.disturber("pool") is None
        deadline = time.monotonic() + 20
        while kin.cpu_ns(pool.pid) < 100_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kin.cpu_ns(pool.pid) >= 100_000_000
        assert quiet.disturber("other") is None
        assert quiet.last_disturber() is None
    finally:
        for process in (pool, other):
            process.kill()
            process.wait()


def test_what_a_compiler_used_in_a_turn_is_not_held_against_the_next_one() -> None:
    # Its child is gone when its turn ends, so that only the system's sum of waited-for children knows of it.
    compiles = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'sum(range(20_000_000))'])"
    worker = started(f"{compiles}; print('done', flush=True)\n{SLEEPS}", stdout=subprocess.PIPE)
    try:
        quiet = Quiet({"worker": worker.pid})
        assert worker.stdout is not None
        worker.stdout.readline()
        assert kin.reaped_ns(worker.pid) > 100_000_000
        assert quiet.disturber("worker") is None
        assert quiet.disturber("other") is None
        # Long enough for the trees to be walked again.
        time.sleep(0.6)
        assert quiet.disturber("other") is None
        assert quiet.last_disturber() is None
    finally:
        worker.kill()
        worker.wait()


def test_what_spins_too_little_to_be_suspected_between_turns_is_found_when_they_end() -> None:
    spins = started(SPINS)
    try:
        quiet = Quiet({"spins": spins.pid})
        time.sleep(0.1)
        for _ in range(50):
            assert quiet.disturber("spins") is None
        deadline, found = time.monotonic() + 20, None
        while found is None and time.monotonic() < deadline:
            time.sleep(0.05)
            found = quiet.last_disturber()
        assert found == "spins"
    finally:
        spins.kill()
        spins.wait()


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


def test_how_long_a_process_waited_for_a_core_is_told_where_it_shares_one() -> None:
    core = {min(os.sched_getaffinity(0))}
    rivals = [started(SPINS) for _ in range(2)]
    try:
        for rival in rivals:
            os.sched_setaffinity(rival.pid, core)
        deadline = time.monotonic() + 20
        while kin.waited_ns(rivals[0].pid) < 20_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert kin.waited_ns(rivals[0].pid) >= 20_000_000
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert kin.waited_ns(rivals[0].pid) == 0


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
