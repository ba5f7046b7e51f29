"""A process's whole tree: what it uses, and its end. Where the system has no /proc, a process stands alone."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# A tree that grows faster than it is felled is given up after so many rounds.
_MOST_ROUNDS = 50
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_CLOCK_OF_PROCESS = 2


def adopt_orphans() -> None:
    """Have every descendant of this process that loses its parent become its child: none leaves the tree."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process once its parent is gone, even in the middle of a call that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def mortal(line: Sequence[str]) -> list[str]:
    """The command ``line``, to be killed by the kernel once this process is gone, whatever program it is."""
    if sys.platform != "linux":
        return list(line)
    # What prctl(2) sets here outlives execve(2).
    die = f"import ctypes; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)"
    become = "import os, sys; os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-S", "-c", f"{die}; {become}", str(os.getpid()), *line]


def children(pid: int) -> list[int]:
    """Process ids of the living children of ``pid``, sorted; empty where the system doesn't tell."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        # The thread may have ended since it was listed.
        with suppress(OSError):
            found += [int(word) for word in listing.read_text().split()]
    return sorted(child for child in found if state(child) != "Z")


def descendants(pid: int) -> list[int]:
    """Everything that ``pid`` started and that still lives, and what that started."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def state(pid: int) -> str:
    """One letter as ps shows it, such as T for stopped and Z for dead; empty where there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def started(pid: int) -> float:
    """When ``pid`` was started, in seconds on this process's monotonic clock; now, where nobody tells."""
    now = time.monotonic()
    fields = _stat(pid)
    if not fields:
        return now
    # Field 22 of proc(5): clock ticks since the machine was started, sleep included.
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) * _TICK_NS / 1e9
    return now - max(0.0, age)


def clock_ns(pid: int) -> int:
    """CPU time that ``pid`` alone has used; raises OSError where there is no such process."""
    # As clock_getcpuclockid(3) makes it: nanoseconds, where /proc counts in hundredths of a second.
    return time.clock_gettime_ns((~pid << 3) | _CLOCK_OF_PROCESS)


def cpu_ns(pid: int) -> int:
    """CPU time that ``pid`` and its living descendants have used, and its children that it has reaped."""
    total = 0
    for each in (pid, *descendants(pid)):
        # It may have ended since it was listed; its parent then has its time, once it is waited for.
        with suppress(OSError):
            total += clock_ns(each)
    return total + reaped_ns(pid)


def waited_ns(pid: int) -> int:
    """How long the first thread of ``pid`` has waited for a core when it could run; 0 where nobody tells."""
    try:
        # See sched-stats in the kernel's documentation: time run, time waited, slices.
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def reaped_ns(pid: int) -> int:
    """CPU time of the children that ``pid`` has waited for, in clock ticks' steps; 0 where there is no such process."""
    fields = _stat(pid)
    # Fields 16 and 17 of proc(5).
    return sum(int(field) for field in fields[13:15]) * _TICK_NS if fields else 0


def end_descendants(pid: int) -> None:
    """Kill everything that ``pid`` started."""
    for _ in range(_MOST_ROUNDS):
        alive = descendants(pid)
        if not alive:
            return
        for each in alive:
            # Dead already, or made setuid: the rounds end either way.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.002)


def end(pid: int) -> None:
    """Kill ``pid`` and everything that it started; it stays to be reaped."""
    # Dead already, or made setuid: then it is not ours to end.
    with suppress(ProcessLookupError, PermissionError):
        # Stopped, it starts nothing more, and takes in the orphans of what is killed below it.
        os.kill(pid, signal.SIGSTOP)
        end_descendants(pid)
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
