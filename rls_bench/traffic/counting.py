"""Counts how often each problem is asked, by any number of threads, for a fraction of a microsecond a call.

Whoever runs a call asks ``if counting.active`` first, which is all that a process pays that records nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count as ticks

from rls_bench.problems.problem import Problem

# Problems that are told apart by their exact lengths; decoding makes a new one with every token.
MOST_EXACT = 4096
# Beyond that lengths of new ones are rounded to so many steps an octave; and beyond this none is added.
STEPS = 16
MOST_PROBLEMS = 2 * MOST_EXACT
# Problems known by identity; they are met again after that.
_MOST_KNOWN = 1024


class _Counter:
    """Counts without a lock: ``tick`` is one call of C code, which no thread switch divides."""

    def __init__(self) -> None:
        self._ticks = ticks()
        self._looks = 0
        self.tick: Callable[[], int] = self._ticks.__next__

    def read(self) -> int:
        """How many ticks so far; one thread at a time may ask, for asking is a tick, too."""
        found = next(self._ticks) - self._looks
        self._looks += 1
        return found


class Counts:
    """How often each problem was asked since this was made; ``requests`` counts prompts of steered models."""

    def __init__(self) -> None:
        self._counters: dict[Problem, _Counter] = {}
        # By identity, since hashing a problem takes longer than a plan's call may; the problem is kept beside, so that
        # no other takes its identity.
        self._known: dict[int, tuple[Problem, Callable[[], int]]] = {}
        self._uncounted = _Counter()
        self._requests = 0
        self._lock = threading.Lock()
        # Called when a problem is met that wasn't known.
        self.on_new: Callable[[], None] = lambda: None

    def add(self, problem: Problem) -> None:
        """``problem`` was asked once."""
        known = self._known.get(id(problem))
        if known is None:
            known = self._meet(problem)
        known[1]()

    def add_requests(self, number: int) -> None:
        """So many prompts began."""
        with self._lock:
            self._requests += number

    def read(self) -> tuple[dict[Problem, int], int, int]:
        """Calls of each problem, calls of problems beyond the most that are told apart, and requests."""
        with self._lock:
            found = {problem: counter.read() for problem, counter in self._counters.items()}
            return found, self._uncounted.read(), self._requests

    def _meet(self, problem: Problem) -> tuple[Problem, Callable[[], int]]:
        with self._lock:
            counter = self._counter(problem)
            if len(self._known) >= _MOST_KNOWN:
                # A new one: other threads look into the old one without the lock.
                self._known = {}
            known = self._known[id(problem)] = problem, counter.tick
        self.on_new()
        return known

    def _counter(self, problem: Problem) -> _Counter:
        counter = self._counters.get(problem)
        if counter is None and len(self._counters) >= MOST_EXACT:
            problem = rounded(problem)
            counter = self._counters.get(problem)
        if counter is None and len(self._counters) >= MOST_PROBLEMS:
            return self._uncounted
        if counter is None:
            counter = self._counters[problem] = _Counter()
        return counter


# What is counting now; more than one where contexts are nested or threads have their own.
active: tuple[Counts, ...] = ()
_LOCK = threading.Lock()


def count(problem: Problem) -> None:
    """Tell all that count of one call."""
    for counts in active:
        counts.add(problem)


def count_requests(number: int) -> None:
    """Tell all that count of prompts that begin."""
    for counts in active:
        counts.add_requests(number)


def start(counts: Counts) -> None:
    """Have ``counts`` count from now on."""
    global active
    with _LOCK:
        active = (*active, counts)


def stop(counts: Counts) -> None:
    """Have ``counts`` count no longer."""
    global active
    with _LOCK:
        active = tuple(one for one in active if one is not counts)


def begin_anew(counts: tuple[Counts, ...]) -> None:
    """In a process that was forked: ``counts`` count in place of all others, whose locks may be held for ever."""
    global active, _LOCK
    _LOCK = threading.Lock()
    active = counts


def rounded(problem: Problem) -> Problem:
    """``problem`` with its lengths rounded to ``STEPS`` an octave; short queries, as of decoding, stay."""
    keys = _rounded(problem.key_length)
    queries = problem.query_length if problem.query_length <= STEPS else _rounded(problem.query_length)
    return replace(problem, key_length=keys, query_length=keys if problem.is_square else queries)


def _rounded(length: int) -> int:
    step = 1 << max(0, length.bit_length() - STEPS.bit_length())
    return (length + step // 2) // step * step
