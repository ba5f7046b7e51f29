"""Inside a worker: one backend, one problem at a time, and the answers to the coordinator's requests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

# Before any backend is loaded, so that the clock is the real one.
from rls_bench.timing import clock

import torch  # isort: skip

from rls_bench import agreement
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Support
from rls_bench.errors import BackendError
from rls_bench.machines import host
from rls_bench.probes.registry import observe
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Status
from rls_bench.runner import honesty, messages
from rls_bench.runner.honesty import Finding
from rls_bench.runner.kernels import kernels_of
from rls_bench.runner.shared import SharedInputs, variant
from rls_bench.timing import caches, calibrate, cuda, stopwatch

# More distinct inputs than this tell nothing new.
_MOST_INPUTS = 3
# Queries that a backend is judged on whose calls take too long to be timed.
_EXCERPT_QUERIES = 64
_STDOUT = 1


@dataclass
class _Bench:
    """A problem on the workbench: the backend prepared on each of its distinct inputs, and the results to expect."""

    problem: Problem
    calls: list[Callable[[], Any]]
    expected: list[torch.Tensor]
    # What one call took as it was checked.
    call_ns: int
    stopwatches: dict[Question, stopwatch.Stopwatch] = field(default_factory=dict)
    loops: dict[Question, int] = field(default_factory=dict)
    turn: int = 0


class Workbench:
    """Answers requests; whatever the backend raises becomes the reply's status."""

    def __init__(self, name: str, shared: SharedInputs) -> None:
        self._name = name
        self._shared = shared
        self._bench: _Bench | None = None
        self._calls_ns = self._last_ns = 0
        self._children: list[int] = []
        self._resolution_ns = clock.resolution_ns()
        # What has been imported stays: with it set aside, each later collection takes a millisecond, not a hundred.
        gc.freeze()

    def answer(self, request: Any) -> messages.Reply:
        """The reply to one request."""
        printed = _printed_bytes()
        self._calls_ns = 0
        if isinstance(request, messages.Introduce):
            return self._introduce(request)
        if isinstance(request, messages.Release):
            self._release()
            return messages.Released()
        reply: messages.Prepared | messages.Sampled
        try:
            reply = self._prepare(request) if isinstance(request, messages.Prepare) else self._sample(request)
        # SystemExit and KeyboardInterrupt of a backend are its own fault like any other.
        except BaseException as error:
            kind = messages.Prepared if isinstance(request, messages.Prepare) else messages.Sampled
            reply = kind(*_status_of(error))
        if reply.status != "ok":
            self._release()
        reply.calls_ns = self._calls_ns
        reply.noise = _noise_since(printed)
        return reply

    def _introduce(self, request: messages.Introduce) -> messages.Introduction:
        machine = host.current()
        try:
            backend = registry.get(self._name)
        except BackendError as error:
            missing = messages.Verdict(False, str(error))
            return messages.Introduction(machine, missing, missing, [missing] * len(request.problems))
        return messages.Introduction(
            machine,
            _verdict(backend.available()),
            _verdict(backend.measurable()),
            [_verdict(backend.supports(problem)) for problem in request.problems],
            backend.compiles,
        )

    def _prepare(self, request: messages.Prepare) -> messages.Prepared:
        """Agreement before speed; the first thing found wrong ends it."""
        self._release()
        backend, inputs = registry.get(self._name), self._shared.draw(request.problem)
        if not request.timed:
            judged = agreement.check(backend, excerpt(inputs))
            return messages.Prepared("ok" if judged.passed else "wrong", judged.reason, judged)
        reply = messages.Prepared("ok")
        began = clock.now_ns()
        call = backend.prepare(inputs)
        reply.compile_seconds = (clock.now_ns() - began) / 1e9
        check = self._recheck if request.fingerprint else self._check
        output, finding = check(backend, inputs, call, request, reply)
        finding = finding or self._lay_out(backend, inputs, call, output, request, reply)
        if finding is None and not request.fingerprint:
            reply.fingerprint = honesty.fingerprint(output)
            self._observe(lambda: self._called(call), request, reply)
        if (finding := finding or self._meddled()) is not None:
            reply.status, reply.reason = finding.status, finding.reason
        return reply

    def _check(
        self,
        backend: Backend,
        inputs: Inputs,
        call: Callable[[], Any],
        request: messages.Prepare,
        reply: messages.Prepared,
    ) -> tuple[torch.Tensor, Finding | None]:
        """The first two calls, against the oracle and against each other: the output, and what is wrong."""
        del request
        judged = agreement.inputs_for(backend, inputs)
        answer = agreement.ask(lambda: self._called(call), judged, backend.compiles)
        first_ns = self._last_ns
        # Compilers may keep processes of their own; what a later call adds to them is the call's.
        self._children = honesty.children()
        repeated, finding = honesty.late_or_aliased(inputs, answer.result, lambda: self._called(call))
        # What compiled only as it was first called shows as what that call took beyond the second.
        reply.compile_seconds = (reply.compile_seconds or 0.0) + max(0, first_ns - self._last_ns) / 1e9
        reply.call_ns = self._whole_call_ns(call, inputs.problem)
        if finding is None:
            reply.oracle_seconds, truth = self._truth(inputs, backend)
            reply.agreement = agreement.verdict(judged, answer, repeated, truth)
            if not reply.agreement.passed:
                finding = Finding("wrong", reply.agreement.reason)
        return answer.output, finding

    def _recheck(
        self,
        backend: Backend,
        inputs: Inputs,
        call: Callable[[], Any],
        request: messages.Prepare,
        reply: messages.Prepared,
    ) -> tuple[torch.Tensor, Finding | None]:
        """Another process must give the result that agreed in the first one."""
        del backend
        output = honesty.output_of(self._called(call)).clone()
        reply.call_ns = self._whole_call_ns(call, inputs.problem)
        self._children = honesty.children()
        if honesty.matches(output, request.fingerprint):
            return output, None
        return output, Finding("wrong", "another process gave another result than the one that agreed with the oracle")

    def _truth(self, inputs: Inputs, backend: Backend) -> tuple[float, agreement.Truth]:
        """The oracle's answer, and the seconds that it took."""
        began = clock.now_ns()
        truth = self._shared.truth(inputs, backend.steers)
        return (clock.now_ns() - began) / 1e9, truth

    def _called(self, call: Callable[[], Any]) -> Any:
        start = clock.now_ns()
        result = call()
        self._last_ns = clock.now_ns() - start
        self._calls_ns += self._last_ns
        return result

    def _whole_call_ns(self, call: Callable[[], Any], problem: Problem) -> int:
        """What the last call took; on CUDA, where that was to queue it, what another takes to its end."""
        if problem.device == "cuda":
            torch.cuda.synchronize()
            start = clock.now_ns()
            self._called(call)
            torch.cuda.synchronize()
            return clock.now_ns() - start
        return self._last_ns

    def _observe(self, call: Callable[[], Any], request: messages.Prepare, reply: messages.Prepared) -> None:
        memory = observe("memory", call, self._name, request.problem)
        for name, field_name in (("peak_bytes", "peak_bytes"), ("workspace_bytes", "workspace_bytes")):
            value = memory.get(name)
            if isinstance(value, (int, float)):
                setattr(reply, field_name, int(value))
        reply.probes = {name: observe(name, call, self._name, request.problem) for name in request.probes}

    def _lay_out(
        self,
        backend: Backend,
        first: Inputs,
        call: Callable[[], Any],
        output: torch.Tensor,
        request: messages.Prepare,
        reply: messages.Prepared,
    ) -> Finding | None:
        """Prepare the backend on as many distinct inputs as ``input_bytes`` allows; in the first launch, see through
        results that were kept from before, and which kernel runs.
        """
        problem = first.problem
        # Where two sets of inputs overflow the cache, a third tells nothing new.
        most = _MOST_INPUTS if 2 * problem.input_bytes < caches.last_level_bytes(problem.device) else 2
        count = max(1, min(most, request.input_bytes // max(1, problem.input_bytes)))
        thorough = not request.fingerprint
        others = [variant(first, index) for index in range(1, max(count, 2) if thorough else count)]
        calls = [call, *(backend.prepare(other) for other in others)]
        expected = [output, *(honesty.output_of(self._called(each)).clone() for each in calls[1:])]
        if any(torch.equal(output, other) for other in expected[1:]):
            return Finding("wrong", "gave the same result for different inputs: it was kept from before")
        if thorough:
            with honesty.overwritten(first, others[0]):
                result, reply.kernels, finding = kernels_of(backend, lambda: self._called(call))
                finding = finding or honesty.stale(honesty.output_of(result), expected[1])
            if finding is not None:
                return finding
        self._bench = _Bench(problem, calls[:count], expected[:count], reply.call_ns)
        return None

    def _sample(self, request: messages.Sample) -> messages.Sampled:
        bench = self._bench
        if bench is None:
            return messages.Sampled("failed", "no problem is prepared")
        if request.question == "cold" and bench.problem.device == "cpu" and not _fits_in_cache(bench.problem):
            return messages.Sampled("ok", "its inputs fit in no cache, so that every call is a cold one")
        watch = bench.stopwatches.get(request.question)
        if watch is None:
            watch = bench.stopwatches[request.question] = _stopwatch(request.question, bench.problem)

        last: Any = None
        which = 0

        def take(loops: int) -> int:
            nonlocal last, which
            timed = watch.time(bench.calls, bench.turn, loops)
            self._calls_ns += timed.calls_ns
            # What stays warm takes the same inputs for a whole turn.
            each = request.question in ("cold", "host")
            which = (bench.turn + (loops - 1 if each else 0)) % len(bench.calls)
            bench.turn += loops if each else 0
            last = timed.result
            return timed.elapsed_ns

        began = clock.now_ns()
        warmup: list[float] = []
        if request.question not in bench.loops:
            try:
                bench.loops[request.question], warmup = self._warm_up(bench, request, watch, take)
            except RuntimeError as error:
                # A call that cannot be captured is still a good call.
                if request.question == "graph":
                    return messages.Sampled("ok", f"cannot be captured in a CUDA graph: {error}"[:300])
                raise
        elif watch.primes:
            self._called(bench.calls[bench.turn % len(bench.calls)])
        loops = bench.loops[request.question]
        samples = [take(loops) / loops for _ in range(request.count)]
        at_once = honesty.output_of(last).clone()
        ended = clock.now_ns()
        if request.question not in ("cold", "host"):
            bench.turn += 1

        finding = self._meddled()
        if finding is None and not honesty.same(at_once, bench.expected[which]):
            finding = Finding("wrong", "the result of a timed call was not the result that agreed with the oracle")
        if finding is not None:
            return messages.Sampled(finding.status, finding.reason)
        return messages.Sampled("ok", samples_ns=samples, warmup_ns=warmup, began_ns=began, ended_ns=ended)

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
        if timers := clock.replaced():
            return Finding("failed", f"it put a timer of its own in place of {timers}")
        if extra := sorted(set(honesty.children()) - set(self._children)):
            return Finding("failed", f"a call left a child process behind (pid {', '.join(map(str, extra))})")
        return None

    def _release(self) -> None:
        self._bench = None
        gc.collect()
        if torch.cuda.is_available():
            # After a fault on the device nothing there works any more; the reply tells of the fault itself.
            with suppress(RuntimeError):
                torch.cuda.empty_cache()


def _stopwatch(question: Question, problem: Problem) -> stopwatch.Stopwatch:
    if problem.device == "cuda":
        if question == "cold":
            return cuda.ColdL2(torch.cuda, caches.flusher("cuda"))
        watches: dict[Question, Callable[[Any], stopwatch.Stopwatch]] = {
            "warm": cuda.WarmL2,
            "graph": cuda.Graph,
            "host": cuda.Host,
        }
        return watches[question](torch.cuda)
    return stopwatch.Cold() if question == "cold" else stopwatch.Warm(primes=_fits_in_cache(problem))


def _fits_in_cache(problem: Problem) -> bool:
    return problem.input_bytes < caches.last_level_bytes(problem.device)


def excerpt(inputs: Inputs) -> Inputs:
    """The first KV head of the first batch element and the last queries that read it.

    That is enough where a call takes minutes. Causal masks are bottom-right aligned, so the last queries keep theirs.
    """
    whole = inputs.problem
    heads, rows = whole.group_size, min(whole.query_length, _EXCERPT_QUERIES)
    spans = {
        "query": (heads, rows),
        "key": (1, None),
        "value": (1, None),
        "bias": (heads, None),
        "strength": (heads, rows),
    }
    parts = {}
    for name, tensor in inputs.tensors().items():
        # An axis of 1 broadcasts, and a span that is longer leaves it alone.
        part = tensor[:1]
        if name in spans:
            head_span, row_span = spans[name]
            part = part[:, :head_span] if row_span is None else part[:, :head_span, -row_span:]
        parts[name] = part.contiguous()
    problem = replace(whole, batch=1, query_heads=heads, kv_heads=1, query_length=rows)
    return Inputs(problem=problem, scale=inputs.scale, **parts)


def _verdict(support: Support) -> messages.Verdict:
    return messages.Verdict(support.supported, support.reason)


def _status_of(error: BaseException) -> tuple[Status, str]:
    message = " ".join(str(error).split())
    if isinstance(error, SystemExit):
        return "failed", f"it called sys.exit({error.code})"
    # torch's CPU allocator raises a plain RuntimeError.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in message:
        return "out_of_memory", message[:300] or type(error).__name__
    return "failed", f"{type(error).__name__}: {message}"[:300]


def _printed_bytes() -> int:
    """Bytes on standard output so far; the coordinator made it a file."""
    sys.stdout.flush()
    try:
        return os.fstat(_STDOUT).st_size
    except OSError:
        return 0


def _noise_since(before: int) -> str:
    grown = _printed_bytes() - before
    return f"wrote {grown} bytes to standard output" if grown > 0 else ""
