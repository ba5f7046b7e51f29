"""Who works while it isn't its turn: the CPU time of each worker's tree, as the kernel counts it.

A worker that uses more of it in others' turns than thread pools do is suspected. Nobody is condemned for that: nothing
is asked of anyone then, and a pool falls silent, where a thread that never rests goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from rls_bench.runner import kin

# GNU OpenMP's threads each turn 300,000 times in a loop before they sleep: 4 ms on a Zen 3, 11 ms on a Sapphire Rapids.
# Intel's wait 200 ms. What a worker uses in others' turns beyond the first of these for each core and each turn of its
# own, beyond a start, and beyond this share of the time, makes it a suspect.
_AFTER_TURN_NS = 20_000_000
_START_NS = 30_000_000
_LEAST_SHARE = 0.03
# Beyond this for each core and turn it needs no trial: others' warm-ups, which are as long, don't cover it.
_MOST_AFTER_TURN_NS = 250_000_000
# A trial: so many pauses, in one of which an honest suspect is silent. On a machine that is so busy that threads wait
# 50 ms for their turn, one that never rests still shows in a pause of this length.
_PAUSES = 6
_PAUSE_SECONDS = 0.2
_SILENT_SHARE = 0.02
# How often the trees are walked; between two walks only the processes already known are looked at.
_WALK_NS = 500_000_000
# Thread pools and compilers' helpers fall silent this soon once nothing is asked.
_SETTLE_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_SETTLED_SHARE = 0.1


@dataclass
class _Watched:
    pid: int
    tree: list[int] = field(default_factory=list)
    used_ns: int = 0
    turns: int = 0
    # Since the watch began, outside of its turns.
    idle_ns: int = 0
    worked_ns: int = 0

    def clear(self) -> None:
        self.turns = self.idle_ns = self.worked_ns = 0


class Quiet:
    """Watches the workers of one problem's turns; ``pids`` by label."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._watched = {label: _Watched(pid) for label, pid in pids.items()}
        self._cores = _cores()
        self._at_ns = self._walked_ns = 0
        self._look(None)

    def settle(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Wait until all are idle, or for ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = {label: each.worked_ns for label, each in self._watched.items()}
            began = self._at_ns
            time.sleep(_LOOK_SECONDS)
            self._look(None)
            most = _SETTLED_SHARE * (self._at_ns - began)
            if all(each.worked_ns - before[label] <= most for label, each in self._watched.items()):
                break
        for each in self._watched.values():
            each.clear()

    def disturber(self, on_turn: str) -> str | None:
        """Take in the turn of ``on_turn``, which is over: a label that works in others' turns, or None."""
        self._look(on_turn)
        return self._tried(lambda each: _START_NS + _AFTER_TURN_NS * self._cores * each.turns)

    def last_disturber(self) -> str | None:
        """Once all turns are over: a label that worked in others', with less patience than between them, or None."""
        self._look(None)
        return self._tried(lambda each: _START_NS)

    def _tried(self, allowed: Callable[[_Watched], int]) -> str | None:
        for label, each in self._watched.items():
            if each.worked_ns <= max(allowed(each), _LEAST_SHARE * each.idle_ns):
                continue
            most_ns = _START_NS + _MOST_AFTER_TURN_NS * self._cores * max(1, each.turns)
            if each.worked_ns > most_ns or self._goes_on(each):
                return label
            each.clear()
        return None

    def _goes_on(self, suspect: _Watched) -> bool:
        """Whether it works on while nobody is asked for anything."""
        for _ in range(_PAUSES):
            began_ns, before_ns = self._at_ns, suspect.worked_ns
            time.sleep(_PAUSE_SECONDS)
            self._look(None)
            if suspect.worked_ns - before_ns <= _SILENT_SHARE * (self._at_ns - began_ns):
                return False
        return True

    def _look(self, on_turn: str | None) -> None:
        now_ns = time.monotonic_ns()
        walks = now_ns - self._walked_ns > _WALK_NS
        for label, each in self._watched.items():
            # What it started in its turn is seen at its end, and is not held against it later.
            if walks or label == on_turn:
                each.tree = [each.pid, *kin.descendants(each.pid)]
            # What waited-for children used belongs to each look: seen now and then, a compiler's minutes would fall
            # into the turn of whoever is next.
            used_ns = max(each.used_ns, sum(_cpu_ns(pid) + kin.reaped_ns(pid) for pid in each.tree))
            if label == on_turn:
                each.turns += 1
            elif self._at_ns:
                each.worked_ns += used_ns - each.used_ns
                each.idle_ns += now_ns - self._at_ns
            each.used_ns = used_ns
        self._at_ns = now_ns
        if walks:
            self._walked_ns = now_ns


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_ns(pid: int) -> int:
    # It may have ended since its tree was listed.
    with suppress(OSError):
        return kin.clock_ns(pid)
    return 0
