"""CPU counters of a call, straight from Linux's perf_event_open(2).

The perf tool would need a process of its own, attached to every thread and started in time; the system call counts
exactly the calls asked for. Worker threads of OpenMP exist before the counters do, so each thread gets its own.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rls_bench.backends.interface import YES, Call, Support, no
from rls_bench.errors import ProbeUnavailable
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem

_SYSTEM_CALL = {"x86_64": 298, "aarch64": 241}
_ENABLE, _DISABLE = 0x2400, 0x2401

# Flags of perf_event_attr: disabled at birth, inherited by new threads, the kernel and the hypervisor left out.
_FLAGS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6
# Read as value, time enabled, time running.
_READ_FORMAT = 1 << 0 | 1 << 1
_ATTRIBUTE_BYTES = 112

_HARDWARE, _SOFTWARE, _CACHE = 0, 1, 3
_LAST_LEVEL_READ = 2

_CALLS = 5


@dataclass(frozen=True)
class Event:
    """One counter, by the kernel's type and configuration numbers."""

    name: str
    type: int
    config: int


INSTRUCTIONS = Event("instructions", _HARDWARE, 1)
CYCLES = Event("cycles", _HARDWARE, 0)
LAST_LEVEL_LOADS = Event("llc_loads", _CACHE, _LAST_LEVEL_READ)
LAST_LEVEL_MISSES = Event("llc_load_misses", _CACHE, _LAST_LEVEL_READ | 1 << 16)
# What the chip's maker calls its cache references; the last level on Intel, an inner one on some AMD chips.
CACHE_REFERENCES = Event("cache_references", _HARDWARE, 2)
CACHE_MISSES = Event("cache_misses", _HARDWARE, 3)
PAGE_FAULTS = Event("page_faults", _SOFTWARE, 2)
_EVENTS = (INSTRUCTIONS, CYCLES, LAST_LEVEL_LOADS, LAST_LEVEL_MISSES, CACHE_REFERENCES, CACHE_MISSES, PAGE_FAULTS)


class PerfProbe:
    """Counts a few warm calls, user space alone, over every thread of the process."""

    name = "perf"
    summary = "instructions, cycles and last-level-cache hits a call (Linux)"

    def available(self) -> Support:
        if platform.system() != "Linux" or platform.machine() not in _SYSTEM_CALL:
            return no("hardware counters are read on Linux alone, on x86-64 and aarch64")
        try:
            os.close(_open(INSTRUCTIONS, 0))
        except OSError as error:
            return no(_refusal(error))
        return YES

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """Counts a call; ``llc_hits`` and ``llc_hit_rate_percent`` need both last-level counters."""
        if problem.device != "cpu":
            raise ProbeUnavailable(
                "the call runs on the GPU; these counters see the CPU alone (probe ncu sees the GPU)"
            )
        call()
        counts = count(_EVENTS, call, _CALLS)
        loads, misses = counts[LAST_LEVEL_LOADS.name], counts[LAST_LEVEL_MISSES.name]
        hits = None if loads is None or misses is None else max(0.0, loads - misses)
        return {
            **counts,
            "llc_hits": hits,
            "llc_hit_rate_percent": 100 * hits / loads if hits is not None and loads else None,
        }


PROBE = PerfProbe()


def count(events: tuple[Event, ...], call: Call, calls: int) -> dict[str, float | None]:
    """Mean of each event a call; None for an event that this machine does not count.

    Where more events are asked for than the chip counts at once the kernel lets them take turns, and each count is
    scaled by the share of the time that it ran.
    """
    with ExitStack() as stack:
        opened = {event.name: stack.enter_context(_on_every_thread(event)) for event in events}
        descriptors = [descriptor for every in opened.values() for descriptor in every]
        for descriptor in descriptors:
            fcntl.ioctl(descriptor, _ENABLE, 0)
        for _ in range(calls):
            call()
        for descriptor in descriptors:
            fcntl.ioctl(descriptor, _DISABLE, 0)
        return {name: _total(every, calls) for name, every in opened.items()}


@contextmanager
def _on_every_thread(event: Event) -> Iterator[list[int]]:
    """A counter on each thread of this process; none where the machine lacks the event."""
    descriptors: list[int] = []
    try:
        for task in Path("/proc/self/task").iterdir():
            try:
                descriptors.append(_open(event, int(task.name)))
            except ProcessLookupError:
                continue
            except OSError:
                break
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _total(descriptors: list[int], calls: int) -> float | None:
    """Sum over threads, a call; None where a thread ran and its counter never got a turn."""
    if not descriptors:
        return None
    total = 0.0
    for descriptor in descriptors:
        value, enabled, running = struct.unpack("QQQ", os.read(descriptor, 24))
        if enabled and not running:
            return None
        # A thread that slept through the calls was enabled for no time at all.
        total += value * enabled / running if running else 0
    return total / calls


def _open(event: Event, thread: int) -> int:
    attribute = struct.pack("IIQQQQQ", event.type, _ATTRIBUTE_BYTES, event.config, 0, 0, _READ_FORMAT, _FLAGS)
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_SYSTEM_CALL[platform.machine()], buffer, thread, -1, -1, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(descriptor)


def _refusal(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        level = Path("/proc/sys/kernel/perf_event_paranoid").read_text().strip()
        return (
            f"the kernel forbids counters (perf_event_paranoid is {level}, or a container's seccomp profile); "
            "sysctl kernel.perf_event_paranoid=2, or --cap-add PERFMON"
        )
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return "this machine shows no hardware counters (a virtual machine without them?)"
    return f"perf_event_open: {error.strerror}"
