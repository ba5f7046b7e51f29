"""Inside a worker: one backend, one problem at a time, and the answers to the coordinator's requests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

# Before any backend is loaded, so that the clock is the real one.
from rls_bench.timing import clock

import torch  # isort: skip

from rls_bench import agreement, host
from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Support
from rls_bench.errors import BackendError
from rls_bench.inputs import Inputs
from rls_bench.probes.registry import observe
from rls_bench.problem import Problem
from rls_bench.record import Question, Status
from rls_bench.runner import honesty, messages
from rls_bench.runner.honesty import Finding
from rls_bench.runner.kernels import kernels_of
from rls_bench.runner.shared import SharedInputs, variant
from rls_bench.timing import caches, calibrate, cuda, stopwatch

# More distinct inputs than this tell nothing new.
_MOST_INPUTS = 3
# Queries that a backend is judged on whose calls take too long to be timed.
_EXCERPT_QUERIES = 128
_STDOUT = 1


@dataclass
class _Bench:
    """A problem on the workbench: the backend prepared on each of its distinct inputs, and the results to expect."""

    problem: Problem
    calls: list[Callable[[], Any]]
    expected: list[torch.Tensor]
    # What one call took while the inputs were laid out.
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
        self._calls_ns = 0
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
        if isinstance(reply, messages.Prepared) and self._bench is not None:
            reply.call_ns = self._bench.call_ns
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
        )

    def _prepare(self, request: messages.Prepare) -> messages.Prepared:
        """Agreement before speed; the first thing found wrong ends it."""
        self._release()
        backend, inputs = registry.get(self._name), self._shared.draw(request.problem)
        if not request.timed:
            judged = agreement.check(backend, excerpt(inputs))
            return messages.Prepared("ok" if judged.passed else "wrong", judged.reason, judged)
        call, output, compile_seconds = self._compiled(backend, inputs)
        # Compilers may keep processes of their own; what a later call adds to them is the call's.
        self._children = honesty.children()
        reply = messages.Prepared("ok", compile_seconds=compile_seconds)
        if request.fingerprint:
            finding = _recheck(output, request.fingerprint)
        else:
            finding = self._check(backend, inputs, call, reply)
        finding = finding or self._lay_out(backend, inputs, call, output, request.input_bytes) or self._meddled()
        if finding is not None:
            reply.status, reply.reason = finding.status, finding.reason
        elif not request.fingerprint:
            reply.fingerprint = honesty.fingerprint(output)
            self._observe(call, request, reply)
        return reply

    def _check(
        self, backend: Backend, inputs: Inputs, call: Callable[[], Any], reply: messages.Prepared
    ) -> Finding | None:
        """Compare with the oracle, look for tricks, see which kernel runs."""
        reply.agreement = agreement.check(backend, inputs, self._shared.truth(inputs, backend.steers))
        if not reply.agreement.passed:
            return Finding("wrong", reply.agreement.reason)
        if (finding := honesty.inspect(backend, inputs, call)) is not None:
            return finding
        reply.kernels, finding = kernels_of(backend, call)
        return finding

    def _compiled(self, backend: Backend, inputs: Inputs) -> tuple[Callable[[], Any], torch.Tensor, float]:
        """A prepared call that has run, its output, and the seconds that this took beyond what a later call takes."""
        start = clock.now_ns()
        call = backend.prepare(inputs)
        call()
        first_ns = clock.now_ns() - start
        before = self._calls_ns
        output = honesty.output_of(self._called(call)).clone()
        return call, output, max(0, first_ns - (self._calls_ns - before)) / 1e9

    def _called(self, call: Callable[[], Any]) -> Any:
        start = clock.now_ns()
        result = call()
        self._calls_ns += clock.now_ns() - start
        return result

    def _observe(self, call: Callable[[], Any], request: messages.Prepare, reply: messages.Prepared) -> None:
        memory = observe("memory", call, self._name, request.problem)
        for name, field_name in (("peak_bytes", "peak_bytes"), ("workspace_bytes", "workspace_bytes")):
            value = memory.get(name)
            if isinstance(value, (int, float)):
                setattr(reply, field_name, int(value))
        reply.probes = {name: observe(name, call, self._name, request.problem) for name in request.probes}

    def _lay_out(
        self, backend: Backend, first: Inputs, call: Callable[[], Any], output: torch.Tensor, input_bytes: int
    ) -> Finding | None:
        """Prepare the backend on as many distinct inputs as ``input_bytes`` allows."""
        # Where one set of inputs overflows the cache, two already share none of it.
        most = _MOST_INPUTS if _fits_in_cache(first.problem) else 2
        count = max(1, min(most, input_bytes // max(1, first.problem.input_bytes)))
        calls = [call] + [backend.prepare(variant(first, index)) for index in range(1, count)]
        before = self._calls_ns
        expected = [output] + [honesty.output_of(self._called(each)).clone() for each in calls[1:]]
        if any(torch.equal(output, other) for other in expected[1:]):
            return Finding("wrong", "gave the same result for different inputs: it was kept from before")
        call_ns = (self._calls_ns - before) // max(1, count - 1)
        self._bench = _Bench(first.problem, calls, expected, call_ns)
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

        def take(loops: int) -> int:
            nonlocal last
            timed = watch.time(bench.calls, bench.turn, loops)
            self._calls_ns += timed.calls_ns
            bench.turn += loops if request.question in ("cold", "host") else 1
            last = timed.result
            return timed.elapsed_ns

        began = clock.now_ns()
        warmup: list[float] = []
        if request.question not in bench.loops:
            try:
                bench.loops[request.question], warmup = calibrate.warm_up(
                    take,
                    lambda call_ns: calibrate.loops_for(call_ns, self._resolution_ns, watch.least_ns),
                    # Caches that are emptied each time need no warming, only the number of loops.
                    1 if request.question == "cold" else request.patience_ns,
                )
            except RuntimeError as error:
                # A call that cannot be captured is still a good call.
                if request.question == "graph":
                    return messages.Sampled("ok", f"cannot be captured in a CUDA graph: {error}"[:300])
                raise
        loops = bench.loops[request.question]
        samples = [take(loops) / loops for _ in range(request.count)]
        at_once = honesty.output_of(last).clone()
        ended = clock.now_ns()

        finding = self._meddled()
        if finding is None and not honesty.same(at_once, bench.expected[(bench.turn - 1) % len(bench.calls)]):
            finding = Finding("wrong", "the result of a timed call was not the result that agreed with the oracle")
        if finding is not None:
            return messages.Sampled(finding.status, finding.reason)
        return messages.Sampled("ok", samples_ns=samples, warmup_ns=warmup, began_ns=began, ended_ns=ended)

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


def _recheck(output: torch.Tensor, fingerprint: list[float]) -> Finding | None:
    """Another process must give the result that agreed in the first one."""
    if honesty.matches(output, fingerprint):
        return None
    return Finding("wrong", "another process gave another result than the one that agreed with the oracle")


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
