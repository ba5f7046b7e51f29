"""Who works while it isn't its turn: the CPU time of each worker's tree, as the kernel counts it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from rls_bench.runner import kin

# GNU OpenMP's threads spin for up to 4 ms of CPU time after a call. What a worker uses in others' turns beyond twice
# that for each turn of its own, beyond a start, and beyond this share of the time, it takes from them. A share alone
# would say little: on a busy machine even a thread that never rests gets but a part of a core.
_AFTER_TURN_NS = 8_000_000
_START_NS = 30_000_000
_LEAST_SHARE = 0.03
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


class Quiet:
    """Watches the workers of one problem's turns; ``pids`` by label."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._watched = {label: _Watched(pid) for label, pid in pids.items()}
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
            each.idle_ns = each.worked_ns = 0

    def disturber(self, on_turn: str) -> str | None:
        """Take in the turn of ``on_turn``, which is over: a label that works too much in others' turns, or None."""
        self._look(on_turn)
        for label, each in self._watched.items():
            allowed_ns = max(_START_NS + _AFTER_TURN_NS * each.turns, _LEAST_SHARE * each.idle_ns)
            if each.worked_ns > allowed_ns:
                return label
        return None

    def _look(self, on_turn: str | None) -> None:
        now_ns = time.monotonic_ns()
        walks = now_ns - self._walked_ns > _WALK_NS
        for label, each in self._watched.items():
            if walks:
                each.tree = [each.pid, *kin.descendants(each.pid)]
                used_ns = kin.cpu_ns(each.pid)
            else:
                used_ns = max(each.used_ns, sum(map(_cpu_ns, each.tree)))
            if label == on_turn:
                each.turns += 1
            elif self._at_ns:
                each.worked_ns += max(0, used_ns - each.used_ns)
                each.idle_ns += now_ns - self._at_ns
            each.used_ns = used_ns
        self._at_ns = now_ns
        if walks:
            self._walked_ns = now_ns


def _cpu_ns(pid: int) -> int:
    with suppress(OSError):
        return kin.clock_ns(pid)
    return 0
