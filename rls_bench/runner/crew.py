"""The workers of one launch, by label."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType

from rls_bench.records.record import Question
from rls_bench.runner import messages, nursery, process
from rls_bench.runner.nursery import Nursery
from rls_bench.runner.process import Worker, WorkerLost


class Crew:
    """Starts a worker for each label, asks it, and starts it anew for the next problem where it was lost."""

    def __init__(self, timeout_seconds: float, compile_timeout_seconds: float, forks: bool) -> None:
        """``forks``: have one fresh process import torch and fork the workers from it, where the system can."""
        self._shared = tempfile.TemporaryFile()  # noqa: SIM115
        self._timeout_seconds = timeout_seconds
        self._compile_timeout_seconds = compile_timeout_seconds
        self._nursery: Nursery | None = None
        if forks and nursery.available():
            self._nursery = Nursery(self._shared.fileno(), process.environment())
        self._backends: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        self.measurable: dict[str, messages.Verdict] = {}
        # Labels that take long to prepare a problem, on one core: compilers, and interpreters that are never timed.
        self.slow: set[str] = set()
        # Questions that a label's current problem has no answer to.
        self.unanswered: dict[str, set[Question]] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.stop()
        if self._nursery is not None:
            self._nursery.stop()
        self._shared.close()

    def start(self, label: str, backend: str) -> None:
        """Start the process of ``label``; returns before it is up."""
        self._backends[label] = backend
        self._workers[label] = Worker(backend, self._shared.fileno(), self._nursery)

    def introduce(self, request: messages.Introduce) -> dict[str, messages.Introduction | WorkerLost]:
        """Ask all that haven't been asked yet, side by side; they may take as long as compiling may.

        All of them import torch first, which from a cold disk takes a minute and more.
        """
        new = [label for label in self._workers if label not in self.measurable]
        answers: dict[str, messages.Introduction | WorkerLost] = {}
        for label in new:
            try:
                self._workers[label].tell(request)
            except WorkerLost as lost:
                answers[label] = lost
        for label in new:
            if label in answers:
                continue
            try:
                reply = self._workers[label].reply(max(self._timeout_seconds, self._compile_timeout_seconds))
            except WorkerLost as lost:
                answers[label] = lost
                continue
            assert isinstance(reply, messages.Introduction)
            self.measurable[label] = reply.measurable
            if reply.compiles or not reply.measurable.yes:
                self.slow.add(label)
            answers[label] = reply
        for label in answers:
            if isinstance(answers[label], WorkerLost):
                self._drop(label)
        return answers

    def ask(self, label: str, request: messages.Request) -> messages.Reply:
        """One question to one worker, started anew where it was lost; raises WorkerLost."""
        self.tell(label, request)
        return self.reply(label, request)

    def tell(self, label: str, request: messages.Request) -> None:
        """The first half of ``ask``: hand ``request`` over and go on; raises WorkerLost."""
        worker = self._workers.get(label)
        if worker is None:
            worker = self._workers[label] = Worker(self._backends[label], self._shared.fileno(), self._nursery)
        try:
            worker.tell(request)
        except WorkerLost:
            self._drop(label)
            raise

    def reply(self, label: str, request: messages.Request) -> messages.Reply:
        """The second half of ``ask``: wait for the reply to ``request``; raises WorkerLost."""
        compiles = isinstance(request, messages.Prepare)
        try:
            return self._workers[label].reply(self._compile_timeout_seconds if compiles else self._timeout_seconds)
        except WorkerLost:
            self._drop(label)
            raise

    def discard(self, label: str) -> None:
        """End a worker whose process can no longer be trusted; the next question starts another."""
        self._drop(label)

    def release(self, labels: Iterable[str]) -> None:
        """Have workers drop their tensors, side by side; one that is lost has none."""
        told = []
        for label in labels:
            self.unanswered.pop(label, None)
            if label in self._workers:
                with suppress(WorkerLost):
                    self.tell(label, messages.Release())
                    told.append(label)
        for label in told:
            with suppress(WorkerLost):
                self.reply(label, messages.Release())

    def _drop(self, label: str) -> None:
        worker = self._workers.pop(label, None)
        if worker is not None:
            worker.stop()
