"""Counters through perf_event_open: software events count everywhere, hardware ones only where the machine has them."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import threading

import pytest

from rls_bench.backends.interface import YES
from rls_bench.errors import ProbeUnavailable
from rls_bench.probes import perf
from rls_bench.problems.problem import Problem

CPU_PROBLEM = Problem(1, 1, 1, 1, 1, 16, 16)
PAGES = 64


def touch_fresh_pages() -> None:
    fresh = mmap.mmap(-1, PAGES * mmap.PAGESIZE)
    for page in range(PAGES):
        fresh[page * mmap.PAGESIZE] = 1
    fresh.close()


def opens_here() -> bool:
    try:
        os.close(perf._open(perf.PAGE_FAULTS, 0))
    except (OSError, KeyError):
        return False
    return True


needs_perf_events = pytest.mark.skipif(not opens_here(), reason="this kernel forbids even software events")


@needs_perf_events
def test_page_faults_are_counted_a_call() -> None:
    faults = perf.count((perf.PAGE_FAULTS,), touch_fresh_pages, 4)["page_faults"]
    assert faults is not None
    assert PAGES <= faults < 2 * PAGES


@needs_perf_events
def test_threads_that_were_there_before_are_counted_too() -> None:
    go, done, stop = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        while go.wait() and not stop.is_set():
            go.clear()
            touch_fresh_pages()
            done.set()

    def call() -> None:
        done.clear()
        go.set()
        done.wait()

    worker = threading.Thread(target=work)
    worker.start()
    faults = perf.count((perf.PAGE_FAULTS,), call, 4)["page_faults"]
    stop.set()
    go.set()
    worker.join()
    assert faults is not None
    assert faults >= PAGES


@needs_perf_events
def test_an_event_that_the_machine_lacks_is_missing_not_zero() -> None:
    nonsense = perf.Event("nonsense", 3, 0xFFFF)
    assert perf.count((nonsense, perf.PAGE_FAULTS), touch_fresh_pages, 1)["nonsense"] is None


def descriptor_of(value: int, enabled: int, running: int) -> int:
    read_end, write_end = os.pipe()
    os.write(write_end, struct.pack("QQQ", value, enabled, running))
    os.close(write_end)
    return read_end


def test_a_counter_that_took_turns_is_scaled_and_one_without_a_turn_is_missing() -> None:
    slept = descriptor_of(0, 0, 0)
    assert perf._total([descriptor_of(30, 100, 50), slept], 2) == 30
    assert perf._total([descriptor_of(30, 100, 50), descriptor_of(0, 100, 0)], 2) is None
    assert perf._total([], 1) is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EACCES, "sysctl kernel.perf_event_paranoid=2"),
        (errno.ENOENT, "shows no hardware counters"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_refusal_is_one_line_with_the_mend(monkeypatch: pytest.MonkeyPatch, code: int, reason: str) -> None:
    def refuse(event: perf.Event, thread: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(perf, "_open", refuse)
    support = perf.PROBE.available()
    assert not support
    assert reason in support.reason


def test_hits_are_loads_that_did_not_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"instructions": 10.0, "llc_loads": 8.0, "llc_load_misses": 2.0}
    monkeypatch.setattr(perf, "count", lambda events, call, calls: counts)
    measures = perf.PROBE.measure(lambda: None, "fake", CPU_PROBLEM)
    assert (measures["llc_hits"], measures["llc_hit_rate_percent"]) == (6, 75)
    counts["llc_load_misses"] = None  # type: ignore[assignment]
    measures = perf.PROBE.measure(lambda: None, "fake", CPU_PROBLEM)
    assert (measures["instructions"], measures["llc_hits"], measures["llc_hit_rate_percent"]) == (10, None, None)


def test_what_it_says_here_is_what_it_does() -> None:
    support = perf.PROBE.available()
    if support == YES:
        assert perf.PROBE.measure(touch_fresh_pages, "fake", CPU_PROBLEM)["instructions"]
    else:
        assert "counters" in support.reason


def test_a_call_on_the_gpu_is_refused() -> None:
    with pytest.raises(ProbeUnavailable, match="the CPU alone"):
        perf.PROBE.measure(lambda: None, "fake", Problem(1, 1, 1, 1, 1, 16, 16, device="cuda"))
