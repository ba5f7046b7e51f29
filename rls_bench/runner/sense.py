"""Whether what a worker says can be true: its replies, and its clock against the coordinator's.

A backend shares a process with the clock that it is timed by. Two things are out of its reach: when the coordinator
asked and when it was answered. A turn is hardly more than its calls, so their times must fit into it, and must fill it.
"""

from __future__ import annotations

import math

from rls_bench.problems.problem import Problem
from rls_bench.runner import messages

_REPLIES = {
    messages.Introduce: messages.Introduction,
    messages.Prepare: messages.Prepared,
    messages.Sample: messages.Sampled,
    messages.Surprise: messages.Surprised,
    messages.Release: messages.Released,
}
# Between two clocks of one machine; a turn's calls may exceed it by no more.
_CLOCKS_DIFFER = 1.01
_SLACK_NS = 1_000_000
# In the fullest of several turns calls take at least this share of the time; in an honest one nine tenths and more.
LEAST_SHARE = 0.4
ENOUGH_TURNS = 3
# What else a turn takes, whatever its calls do: to ask, to lay contents out, to hand results over. 5 ms were seen on
# two cores, and more beside other work: a turn of a few short calls is hardly anything else.
BESIDE_NS = 25_000_000
# A turn with more waiting for a core tells nothing: on a busy machine all of it passes between calls.
MOST_WAITED = 0.2
# Ten times what any machine of its kind does: operations a second of a CPU core and of a GPU.
_CORE_FLOPS = 2e13
_GPU_FLOPS = 3e16


def nonsense(request: messages.Request, reply: messages.Reply) -> str:
    """Why ``reply`` cannot be one to ``request``, or an empty string."""
    if not isinstance(reply, _REPLIES[type(request)]):
        return f"a {type(reply).__name__} in answer to a {type(request).__name__}"
    if isinstance(request, messages.Introduce) and isinstance(reply, messages.Introduction):
        if len(reply.supports) != len(request.problems):
            return f"{len(reply.supports)} answers to {len(request.problems)} problems"
        if len(reply.to_build) not in (0, len(request.problems)):
            return f"{len(reply.to_build)} lists of what is to build for {len(request.problems)} problems"
        if not all(_is_time(seconds) for named in reply.to_build for seconds in named.values()):
            return "times that are none"
    elif isinstance(request, messages.Prepare) and isinstance(reply, messages.Prepared):
        calls = 3 if request.timed else 2
        if not 0 <= reply.handed <= calls or (reply.status == "ok" and reply.handed < calls):
            return f"{reply.handed} results of {calls} calls"
        if not all(map(_is_time, (reply.call_ns, reply.calls_ns, reply.compile_seconds or 0))):
            return "times that are none"
    elif isinstance(request, messages.Sample) and isinstance(reply, messages.Sampled) and reply.status == "ok":
        return _nonsense_sampled(request, reply)
    elif isinstance(reply, messages.Surprised) and reply.status == "ok" and (reply.unseen_ns <= 0 or reply.seen_ns < 0):
        return "times that are none"
    return ""


def _nonsense_sampled(request: messages.Sample, reply: messages.Sampled) -> str:
    if reply.samples_ns and not len(reply.samples_ns) == len(reply.handed) == request.count:
        return f"{len(reply.samples_ns)} samples and {len(reply.handed)} results; asked for {request.count}"
    if not all(_is_time(sample) and sample > 0 for sample in [*reply.samples_ns, *reply.warmup_ns]):
        return "samples that are no times"
    if not all(handed.slot == slot and handed.steps >= 0 for slot, handed in enumerate(reply.handed)):
        return "results of no call"
    return ""


def _is_time(value: float) -> bool:
    return math.isfinite(value) and value >= 0


class Clocks:
    """What one cell's worker said of its turns, against what the coordinator saw; complaints are reasons."""

    def __init__(self, problem: Problem, cores: int) -> None:
        peak = _GPU_FLOPS if problem.device.startswith("cuda") else _CORE_FLOPS * cores
        # No call is faster, however little of it a causal mask or padding leaves.
        self._least_ns = problem.flops / 2 / peak * 1e9
        self._turns = 0
        self._fullest = 0.0

    def complaint(self, request: messages.Sample, reply: messages.Sampled, wall_ns: int, waited_ns: int = 0) -> str:
        """What cannot be of a turn of ``wall_ns``, ``waited_ns`` of it for want of a core, or an empty string."""
        if reply.calls_ns > wall_ns * _CLOCKS_DIFFER + _SLACK_NS:
            return f"its clock and the coordinator's differ: calls of {_ms(reply.calls_ns)} in a turn of {_ms(wall_ns)}"
        fastest = min(reply.samples_ns)
        if fastest < self._least_ns:
            return f"a call of {fastest:.0f} ns: no machine does these products in less than {self._least_ns:.0f} ns"
        if request.question == "warm" and waited_ns <= MOST_WAITED * wall_ns:
            self._turns += 1
            self._fullest = max(self._fullest, reply.calls_ns / max(wall_ns - BESIDE_NS, reply.calls_ns, 1))
            if self._turns >= ENOUGH_TURNS and self._fullest < LEAST_SHARE:
                return (
                    f"its clock and the coordinator's differ: in the fullest of {self._turns} turns its calls filled "
                    f"{self._fullest:.0%} of the time"
                )
        return ""


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3g} ms"
