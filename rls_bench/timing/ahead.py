"""Device time alone: work is queued while the device spins, so that the host is ahead when the device starts on it.

Two events around work that is queued on an idle device time the host as well: the first happens at once, and the
device then waits for each launch. Behind ``torch.cuda._sleep`` all of it lies in the queue before the first event
happens, which is looked at after each sample. No GPU has run this yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rls_bench.timing import clock

# More than any GPU's clock makes, so that a spin is never shorter than asked.
_CYCLES_PER_NS = 3
_FIRST_LEAD_NS = 200_000
# What queueing took varies; a spin this many times as long is rarely overtaken.
_MARGIN = 1.5
# A call whose queueing takes longer waits for the device itself, and no spin gets ahead of it.
_MOST_LEAD_NS = 100_000_000
_TRIES = 4


@dataclass(frozen=True)
class Timed:
    """``elapsed_ns`` on the device, the work's ``result``, and whether the host ``was_ahead`` all along."""

    elapsed_ns: int
    result: Any
    was_ahead: bool


class Ahead:
    """Times work on the device; takes ``torch.cuda`` or a fake of it, and learns how long to spin from each sample."""

    def __init__(self, cuda: Any, now_ns: clock.Clock = clock.now_ns) -> None:
        self._cuda = cuda
        self._now_ns = now_ns
        self._lead_ns = _FIRST_LEAD_NS
        self._tries = _TRIES

    def time(self, work: Callable[[], Any], before: Callable[[], object] | None = None) -> Timed:
        """Time ``work``, behind ``before`` and a spin, neither of which counts.

        It is repeated behind a longer spin where the device overtook the host. Work that waits for the device, or that
        is more than its queue holds, is overtaken always; its time then has the host's in it.
        """
        for _ in range(self._tries):
            start, stop = (self._cuda.Event(enable_timing=True) for _ in range(2))
            if before is not None:
                before()
            self._cuda._sleep(round(self._lead_ns * _CYCLES_PER_NS))
            start.record()
            began = self._now_ns()
            result = work()
            queueing_ns = self._now_ns() - began
            stop.record()
            # Asked before anything waits: has the device begun while the host was still queueing?
            was_ahead = not start.query()
            stop.synchronize()
            timed = Timed(round(start.elapsed_time(stop) * 1e6), result, was_ahead)
            if was_ahead or queueing_ns >= _MOST_LEAD_NS:
                break
            self._lead_ns = min(_MOST_LEAD_NS, round(max(self._lead_ns, queueing_ns) * _MARGIN))
        # Work that no spin gets ahead of is not tried over and over each time.
        self._tries = _TRIES if was_ahead else 1
        return timed
