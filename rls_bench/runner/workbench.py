"""Inside a worker: one backend, one problem at a time, and the answers to the coordinator's requests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

# Before any backend is loaded, so that the clock is the real one.
from rls_bench.timing import clock

import torch  # isort: skip

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Call
from rls_bench.backends.words import one_line
from rls_bench.machines import vector_math
from rls_bench.probes.registry import observe
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question
from rls_bench.referee.intact import Intact
from rls_bench.referee.operands import Operands
from rls_bench.referee.pool import Pool
from rls_bench.referee.results import Tray
from rls_bench.referee.surprise import surprise
from rls_bench.referee.trial import SLOTS, Finding, Trial, result_parts
from rls_bench.runner import interview, kin, messages, watches
from rls_bench.runner.kernels import kernels_of
from rls_bench.runner.outcomes import status_of
from rls_bench.runner.settings import settings
from rls_bench.timing import caches, calibrate, stopwatch

# More distinct inputs than this tell nothing new.
_MOST_INPUTS = 3
# What is folded or compiled once warm is so by then: before new queries come, a backend has been called so often, where
# calls are so short that it takes no longer than this.
_WARM_CALLS = 32
_WARMING_NS = 30_000_000
_STDOUT = 1
_KINDS: dict[type, type[messages.Prepared] | type[messages.Sampled] | type[messages.Surprised]] = {
    messages.Prepare: messages.Prepared,
    messages.Sample: messages.Sampled,
    messages.Surprise: messages.Surprised,
}


@dataclass
class _Bench:
    """A problem on the workbench: the backend prepared on each of its distinct inputs."""

    problem: Problem
    operands: list[Operands]
    calls: list[Call]
    # What one call took as it was checked.
    call_ns: int
    stopwatches: dict[Question, stopwatch.Stopwatch] = field(default_factory=dict)
    loops: dict[Question, int] = field(default_factory=dict)
    turn: int = 0


class Workbench:
    """Answers requests; whatever the backend raises becomes the reply's status."""

    def __init__(self, name: str, tray: int, fault: str = "") -> None:
        """``tray``: the descriptor of the memory for results; ``fault``: what was wrong with the backend already."""
        self._name = name
        self._fault = fault
        self._tray = Tray(tray)
        self._bench: _Bench | None = None
        self._calls_ns = self._last_ns = 0
        # Calls on the problem so far, of all its inputs together.
        self._made = 0
        self._children: list[int] = []
        self._resolution_ns = clock.resolution_ns()
        self._intact = Intact()
        # A kernel's fault is its own, and this would be another's.
        vector_math.settle()
        # What has been imported stays: with it set aside, each later collection takes a millisecond, not a hundred.
        gc.freeze()

    def answer(self, request: Any, descriptors: list[int]) -> messages.Reply:
        """The reply to one request; ``descriptors`` came with it."""
        printed = _printed_bytes()
        self._calls_ns = 0
        if isinstance(request, messages.Introduce):
            return interview.introduction(self._name, self._fault, request)
        if isinstance(request, messages.CheckCase):
            return self._check_case(request.problem)
        if isinstance(request, messages.Release):
            self._drop()
            self._tray.clear()
            return messages.Released()
        reply: messages.Prepared | messages.Sampled | messages.Surprised
        try:
            if isinstance(request, messages.Prepare):
                reply = self._prepare(request, descriptors[0])
            elif isinstance(request, messages.Surprise):
                reply = self._surprise(request, descriptors[0])
            else:
                reply = self._sample(request)
        # SystemExit and KeyboardInterrupt of a backend are its own fault like any other.
        except BaseException as error:
            reply = _KINDS[type(request)](*status_of(error))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if reply.status != "ok":
            # What was handed over stays: the referee may know more.
            self._drop()
        reply.calls_ns = self._calls_ns
        reply.noise = _noise_since(printed)
        return reply

    def _check_case(self, problem: Problem) -> messages.CaseChecked:
        # Only conformance asks for this; a run's workers need not load it.
        from rls_bench.agreement import conformance

        outcome = conformance.check_case(registry.get(self._name), problem)
        return messages.CaseChecked(outcome.status, outcome.reason)

    def _prepare(self, request: messages.Prepare, memory: int) -> messages.Prepared:
        """Prepare the backend and hand over its first results; the first thing found wrong ends it."""
        self._drop()
        backend, pool = registry.get(self._name), Pool(memory, request.layout)
        self._tray.lay_out(pool.problem, SLOTS)
        reply = messages.Prepared("ok")
        began = clock.now_ns()
        first, second = request.contents
        trial = Trial(backend, pool, first)
        reply.compile_seconds = (clock.now_ns() - began) / 1e9
        times: list[int] = []

        def around(call: Call) -> Any:
            result = self._called(call)
            times.append(self._last_ns)
            # Compilers may keep processes of their own; what a later call adds to them is the call's.
            if len(times) == 1:
                self._children = kin.children(os.getpid())
            return result

        finding = trial.look(self._tray, second, around, thrice=request.timed)
        reply.handed = trial.handed
        if finding is None and request.timed:
            # What compiled only as it was first called shows as what that call took beyond a later one.
            reply.compile_seconds += max(0, times[0] - times[-1]) / 1e9
            reply.call_ns = self._whole_call_ns(trial.call, pool.problem)
            finding = self._lay_out(backend, pool, trial, request, reply)
        if (finding := finding or self._meddled()) is not None:
            reply.status, reply.reason = finding.status, finding.reason
        reply.settings = settings()
        return reply

    def _called(self, call: Call) -> Any:
        start = clock.now_ns()
        result = call()
        self._last_ns = clock.now_ns() - start
        self._calls_ns += self._last_ns
        self._made += 1
        return result

    def _whole_call_ns(self, call: Call, problem: Problem) -> int:
        """What the last call took; on CUDA, where that was to queue it, what another takes to its end."""
        if problem.device == "cuda":
            torch.cuda.synchronize()
            start = clock.now_ns()
            self._called(call)
            torch.cuda.synchronize()
            return clock.now_ns() - start
        return self._last_ns

    def _observe(self, call: Call, request: messages.Prepare, reply: messages.Prepared) -> None:
        problem = request.layout.problem
        memory = observe("memory", call, self._name, problem)
        for name, field_name in (("peak_bytes", "peak_bytes"), ("workspace_bytes", "workspace_bytes")):
            value = memory.get(name)
            if isinstance(value, (int, float)):
                setattr(reply, field_name, int(value))
        reply.probes = {name: observe(name, call, self._name, problem) for name in request.probes}

    def _lay_out(
        self, backend: Backend, pool: Pool, trial: Trial, request: messages.Prepare, reply: messages.Prepared
    ) -> Finding | None:
        """Prepare the backend on as many distinct inputs as ``input_bytes`` allows; see which kernel runs."""
        problem = pool.problem
        # Where two sets of inputs overflow the cache, a third tells nothing new.
        most = _MOST_INPUTS if 2 * problem.input_bytes < caches.last_level_bytes(problem.device) else 2
        count = max(1, min(most, request.input_bytes // max(1, problem.input_bytes)))
        trials = [trial, *(Trial(backend, pool, request.contents[1].of(which)) for which in range(1, count))]
        for each in trials[1:]:
            self._called(each.call)
        if request.thorough:
            _, reply.kernels, finding = kernels_of(backend, lambda: self._called(trial.call))
            if finding is not None:
                return Finding(finding.status, finding.reason)
            self._observe(lambda: self._called(trial.call), request, reply)
        for each in trials:
            if changed := each.operands.changed():
                return _changed(changed)
        self._bench = _Bench(problem, [each.operands for each in trials], [each.call for each in trials], reply.call_ns)
        return None

    def _sample(self, request: messages.Sample) -> messages.Sampled:
        bench = self._bench
        if bench is None:
            return messages.Sampled("failed", "no problem is prepared")
        on_cpu = bench.problem.device == "cpu"
        if request.question == "cold" and on_cpu and not watches.fits_in_cache(bench.problem):
            return messages.Sampled("ok", "its inputs fit in no cache, so that every call is a cold one")
        watch = bench.stopwatches.get(request.question)
        if watch is None:
            watch = bench.stopwatches[request.question] = self._stopwatch(request.question, bench)
        # What stays warm takes the same inputs for a whole turn.
        each_anew = request.question in ("cold", "host")
        first = bench.turn % len(bench.calls)
        for which in range(len(bench.calls)) if each_anew else (first,):
            bench.operands[which].lay(request.contents.of(which))

        last: stopwatch.Timed | None = None
        which = first

        def take(loops: int) -> int:
            nonlocal last, which
            if not on_cpu:
                # A device's calls are queued back to back, on one and the same contents.
                for number in range(len(bench.calls)) if each_anew else (first,):
                    bench.operands[number].renew()
            last = watch.time(bench.calls, bench.turn, loops)
            self._calls_ns += last.calls_ns
            self._made += loops
            which = (bench.turn + (loops - 1 if each_anew else 0)) % len(bench.calls)
            bench.turn += loops if each_anew else 0
            return last.elapsed_ns

        began = clock.now_ns()
        warmup: list[float] = []
        if request.question not in bench.loops:
            try:
                bench.loops[request.question], warmup = self._warm_up(bench, request, watch, take)
            except RuntimeError as error:
                # A call that cannot be captured is still a good call.
                if request.question == "graph":
                    return messages.Sampled("ok", one_line(f"cannot be captured in a CUDA graph: {error}"))
                raise
        elif watch.primes:
            self._called(bench.calls[first])
        loops = bench.loops[request.question]
        samples, handed = [], []
        for slot in range(min(request.count, SLOTS)):
            samples.append(take(loops) / loops)
            assert last is not None
            handed.append(self._hand_over(bench, slot, last, which, each_anew))
        ended = clock.now_ns()
        if not each_anew:
            bench.turn += 1

        finding = self._meddled()
        for operands in bench.operands:
            if finding is None and (changed := operands.changed()):
                finding = _changed(changed)
        if finding is not None:
            return messages.Sampled(finding.status, finding.reason)
        return messages.Sampled(
            "ok", samples_ns=samples, warmup_ns=warmup, handed=handed, began_ns=began, ended_ns=ended
        )

    def _stopwatch(self, question: Question, bench: _Bench) -> stopwatch.Stopwatch:
        return watches.stopwatch_for(question, bench.problem, lambda which: bench.operands[which].renew())

    def _surprise(self, request: messages.Surprise, memory: int) -> messages.Surprised:
        bench = self._bench
        if bench is None:
            return messages.Surprised("failed", "no problem is prepared")
        operands, queries = bench.operands[0], Pool(memory, request.layout)
        calls = max(request.calls, min(_WARM_CALLS - self._made, _WARMING_NS // max(1, bench.call_ns)))
        result, unseen_ns, seen_ns = surprise(
            operands, lambda: self._called(bench.calls[0]), request.contents.of(0), queries, calls
        )
        self._tray.put(0, result_parts(result, bench.problem))
        finding = self._meddled()
        if finding is None and (changed := operands.changed()):
            finding = _changed(changed)
        if finding is not None:
            return messages.Surprised(finding.status, finding.reason)
        return messages.Surprised("ok", unseen_ns=unseen_ns, seen_ns=seen_ns)

    def _hand_over(
        self, bench: _Bench, slot: int, timed: stopwatch.Timed, which: int, each_anew: bool
    ) -> messages.Handed:
        """Copy a sample's result into the tray: the last one, as it is at once, or the one kept by the clock."""
        if timed.kept is None or timed.elapsed_ns % 2:
            result, later = timed.result, 0
        else:
            result, later = timed.kept, timed.later
        count = len(bench.calls) if each_anew else 1
        which = (which - later) % len(bench.calls) if each_anew else which
        self._tray.put(slot, result_parts(result, bench.problem))
        # Inputs that take turns have been renewed only as often as theirs came round since.
        return messages.Handed(slot, which, bench.operands[which].mix.steps - later // count)

    def _warm_up(
        self, bench: _Bench, request: messages.Sample, watch: stopwatch.Stopwatch, take: Callable[[int], int]
    ) -> tuple[int, list[float]]:
        """How many calls make a sample, and the samples that warming up took."""

        def loops_of(call_ns: float) -> int:
            return calibrate.loops_for(call_ns, self._resolution_ns, watch.least_ns)

        if request.question == "cold":
            # Caches that are emptied each time need no warming, only the number of loops; one for a long call.
            if bench.problem.device == "cpu" and loops_of(bench.call_ns) == 1:
                return 1, []
            return calibrate.warm_up(take, loops_of, 1)
        return calibrate.warm_up(take, loops_of, request.patience_ns)

    def _meddled(self) -> Finding | None:
        """What the backend did to this process: other timers, children left behind."""
        if fault := self._intact.fault():
            return Finding("failed", fault)
        if extra := sorted(set(kin.children(os.getpid())) - set(self._children)):
            return Finding("failed", f"a call left a child process behind (pid {', '.join(map(str, extra))})")
        return None

    def _drop(self) -> None:
        self._bench = None
        self._made = 0
        gc.collect()
        if torch.cuda.is_available():
            # After a fault on the device nothing there works any more; the reply tells of the fault itself.
            with suppress(RuntimeError):
                torch.cuda.empty_cache()


def _changed(names: list[str]) -> Finding:
    return Finding("wrong", f"changed its input {', '.join(names)}")


def _printed_bytes() -> int:
    """Bytes on standard output so far; the coordinator made it a file."""
    # A backend may have put anything in its place, whose errors are not its result's.
    with suppress(Exception):
        sys.stdout.flush()
    try:
        return os.fstat(_STDOUT).st_size
    except OSError:
        return 0


def _noise_since(before: int) -> str:
    grown = _printed_bytes() - before
    return f"wrote {grown} bytes to standard output" if grown > 0 else ""
