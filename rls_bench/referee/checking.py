"""The guards alone: one kernel on one problem, judged by a process that it cannot reach, without a run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from rls_bench.backends.function import Function, is_plain
from rls_bench.backends.interface import YES, Backend, Call, Support
from rls_bench.backends.words import told
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement, Status
from rls_bench.referee import novelty, sealed
from rls_bench.referee.client import Referee
from rls_bench.referee.contents import Contents
from rls_bench.referee.intact import Intact
from rls_bench.referee.messages import Draw
from rls_bench.referee.pool import Pool
from rls_bench.referee.results import Tray
from rls_bench.referee.surprise import surprise
from rls_bench.referee.trial import SLOTS, Finding, Trial, Wrong, result_parts
from rls_bench.timing import clock, stopwatch

# Calls after the first ones, in each round: a cache that is filled once warm shows in the second, and a kernel that is
# wrong in every other call alone escapes six rounds of two judged calls in one check of 4,096.
_MOST_CALLS = 32
_ROUND_SECONDS = 1.0
_ROUNDS = 6
# Draws of queries that the kernel has never seen; more where it is suspiciously slow on them.
_SURPRISES = 3


@dataclass(frozen=True)
class Verdict:
    """Whether a kernel is right on a problem; ``reason`` is one line where it isn't.

    ``status`` is that of a record: ok, wrong, failed, or unsupported where a backend declines. ``error`` and ``floor``
    are the first call's relative errors, the kernel's and eager's, of the worst (batch, head); ``ratio`` is error over
    floor. ``call_ns`` is the least that a call took on queries that the kernel had never seen, nanoseconds.
    """

    status: Status
    reason: str = ""
    error: float | None = None
    floor: float | None = None
    ratio: float | None = None
    call_ns: int | None = None

    @property
    def passed(self) -> bool:
        """Whether every guard was met."""
        return self.status == "ok"


def check(kernel: Backend | Callable[..., Any], problem: Problem, referee: Referee | None = None) -> Verdict:
    """Whether ``kernel`` is right on ``problem``, on inputs that change from call to call in the same memory.

    ``kernel`` is a backend, a plain function (query, key, value, bias, strength, *, scale, is_causal, …) as
    ``rls_bench.backends.function`` describes it, or a function of ``Inputs`` that returns what a backend's call does.
    It runs in this process; inputs come from, and results go to, a process that it doesn't. ``referee``: one to ask for
    many checks; otherwise one is started for this check alone, which takes seconds.

    Whatever the kernel raises becomes the verdict's reason, with its file and line; where its result is wrong, the
    reason names the first wrong batch, head and query, and the usual causes that fit. Raises BackendUnavailable for a
    plain function that cannot be called so, RefereeLost where no referee can be had. What this
    cannot see is told in "What is guarded, and what isn't".
    """
    backend = kernel if isinstance(kernel, Backend) else _as_backend(kernel)
    with ExitStack() as resources:
        judge = referee or resources.enter_context(Referee())
        draw = Draw(problem, secrets.token_hex(8))
        memory, layout = judge.draw(draw)
        resources.callback(os.close, memory)
        tray = sealed.tray()
        resources.callback(os.close, tray)
        try:
            return _Check(backend, Pool(memory, layout), tray, judge, draw).verdict()
        except Wrong as error:
            return Verdict("wrong", str(error))
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Verdict("out_of_memory", told(error))
        # SystemExit and the like are the kernel's fault as any other; Ctrl-C is the user's.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict("failed", told(error))


def _as_backend(function: Callable[..., Any]) -> Backend:
    if is_plain(function):
        return Function(function, getattr(function, "__name__", "function"))
    return _OfInputs(function)


class _OfInputs(Backend):
    """A function of ``Inputs``, as a backend that does everything anew in each call."""

    name = summary = "function"

    def __init__(self, function: Callable[[Inputs], Any]) -> None:
        self._function = function

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: self._function(inputs)


class _Check:
    def __init__(self, backend: Backend, pool: Pool, tray: int, referee: Referee, draw: Draw) -> None:
        self._backend = backend
        self._pool = pool
        self._memory = tray
        self._tray = Tray(tray)
        self._referee = referee
        self._draw = draw
        # Of the first calls, and of those on new queries.
        self._least_ns: int | None = None
        self._new_ns: int | None = None
        self._intact = Intact()

    def verdict(self) -> Verdict:
        support = self._backend.supports(self._pool.problem)
        if not support:
            return Verdict("unsupported", support.reason)
        self._tray.lay_out(self._pool.problem, SLOTS)
        first, second = (Contents(secrets.token_hex(8), bias) for bias in (0, 1))
        trial = Trial(self._backend, self._pool, first)
        finding = trial.look(self._tray, second, self._timed)
        asked = [(first, None), (second, None), (second, 1)][: trial.handed]
        verdicts = [self._judge(contents, slot, repeats) for slot, (contents, repeats) in enumerate(asked)]
        for _ in range(_ROUNDS):
            if finding is None and all(verdict.passed for verdict in verdicts):
                verdicts += self._round(trial)
        finding = finding or self._surprise(trial, verdicts)
        # Where gradients are asked for, another set would be no other.
        has_other = not self._pool.problem.requires_grad
        if has_other and finding is None and all(verdict.passed for verdict in verdicts):
            verdicts.append(self._on_another_set())
        if fault := self._intact.fault():
            finding = Finding("failed", fault)
        if finding is not None:
            return Verdict(finding.status, finding.reason)
        judged = next((verdict for verdict in verdicts if not verdict.passed), verdicts[0])
        status: Status = "ok" if judged.passed else "wrong"
        return Verdict(status, judged.reason, judged.error, judged.floor, judged.ratio, self._new_ns)

    def _round(self, trial: Trial) -> list[Agreement]:
        """Calls on contents that change before each; what the last one gave, and one named after the fact."""
        contents = Contents(secrets.token_hex(8), secrets.randbelow(2))
        trial.operands.lay(contents)
        assert self._least_ns is not None
        # One call more or less, so that the last is no call of its choosing.
        calls = max(2, min(_MOST_CALLS, round(_ROUND_SECONDS * 1e9 / max(1, self._least_ns))) - secrets.randbelow(2))
        timed = stopwatch.Warm(renew=lambda which: trial.operands.renew()).time([trial.call], 0, calls)
        handed = [(timed.result, 0), (timed.kept, timed.later)]
        for slot, (result, _) in enumerate(handed):
            self._tray.put(slot, result_parts(result, self._pool.problem))
        trial.compare()
        steps = trial.operands.mix.steps
        judged = enumerate(Contents(contents.seed, contents.bias, steps - later) for _, later in handed)
        return [self._judge(each, slot) for slot, each in judged]

    def _surprise(self, trial: Trial, verdicts: list[Agreement]) -> Finding | None:
        """Calls on queries that the kernel never saw, judged; what is wrong where it is slow in every one of them."""
        complaints: list[str] = []
        while len(complaints) < novelty.MOST_TRIES:
            number = len(complaints)
            if not all(verdict.passed for verdict in verdicts) or (number >= _SURPRISES and not all(complaints)):
                return None
            salt, contents = secrets.token_hex(8), Contents(secrets.token_hex(8), number % 2)
            memory, layout = self._referee.draw_unseen(self._draw, salt)
            try:
                result, new_ns, seen_ns = surprise(
                    trial.operands, trial.call, contents, Pool(memory, layout), novelty.CAREFUL_CALLS
                )
                self._tray.put(0, result_parts(result, self._pool.problem))
                trial.compare()
            finally:
                os.close(memory)
            verdicts.append(self._judge(contents, 0, unseen=salt))
            self._new_ns = new_ns if self._new_ns is None else min(self._new_ns, new_ns)
            complaints.append(novelty.complaint(seen_ns, new_ns, self._pool.problem.device))
        return Finding("failed", complaints[-1]) if all(complaints) else None

    def _on_another_set(self) -> Agreement:
        """A call of the backend prepared once more, where keys and values are others."""
        contents = Contents(secrets.token_hex(8), secrets.randbelow(2), negated=True)
        trial = Trial(self._backend, self._pool, contents)
        self._tray.put(0, result_parts(trial.call(), self._pool.problem))
        trial.compare()
        return self._judge(contents, 0)

    def _timed(self, call: Call) -> Any:
        start = clock.now_ns()
        result = call()
        took_ns = clock.now_ns() - start
        self._least_ns = took_ns if self._least_ns is None else min(self._least_ns, took_ns)
        return result

    def _judge(self, contents: Contents, slot: int, repeats: int | None = None, unseen: str = "") -> Agreement:
        steers = self._backend.steers
        return self._referee.judge(self._draw, contents, self._memory, slot, steers, repeats, unseen)
