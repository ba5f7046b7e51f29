"""The workers of one launch, by label."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType

from rls_bench.records.record import Question
from rls_bench.runner import messages, nursery, process, sense
from rls_bench.runner.nursery import Nursery
from rls_bench.runner.process import Worker, WorkerLost

# Letting go of tensors takes no time; a destructor that hangs is waited for no longer.
_RELEASE_SECONDS = 10.0


class Crew:
    """Starts a worker for each label, asks it, and starts it anew for the next problem where it was lost."""

    def __init__(
        self,
        timeout_seconds: float,
        compile_timeout_seconds: float,
        forks: bool,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """``forks``: have one fresh process import torch and fork the workers from it, where the system can.

        ``waiting`` is called several times a second in every wait; what it raises ends the wait.
        """
        self._waiting = waiting
        self._timeout_seconds = timeout_seconds
        self._compile_timeout_seconds = compile_timeout_seconds
        self._forks = forks
        self._nursery: Nursery | None = None
        self._open_nursery()
        self._backends: dict[str, str] = {}
        self._workers: dict[str, Worker] = {}
        self._told: dict[str, messages.Request] = {}
        self.alone = False
        self.measurable: dict[str, messages.Verdict] = {}
        # Labels that take long to prepare a problem, on one core: compilers, and interpreters that are never timed.
        self.slow: set[str] = set()
        # By label and problem, what is compiled once for all processes to come, and in about how many seconds.
        self.to_build: dict[str, list[dict[str, float]]] = {}
        # Plain attention, which is judged at λ = 0.
        self.unsteered: set[str] = set()
        # Questions that a label's current problem has no answer to.
        self.unanswered: dict[str, set[Question]] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def busy(self) -> list[str]:
        """Labels that were told something and haven't replied."""
        return list(self._told)

    def takes_long(self, label: str, index: int) -> bool:
        """Whether ``label`` is long in getting ready for a problem, on one core."""
        to_build = self.to_build.get(label)
        return label in self.slow or bool(to_build and to_build[index])

    def pids(self) -> dict[str, int]:
        """The process of each label that has one."""
        return {label: worker.pid for label, worker in self._workers.items()}

    def tray(self, label: str) -> int:
        """The descriptor of the memory in which ``label`` hands over results."""
        return self._workers[label].tray

    def start(self, label: str, backend: str) -> None:
        """Start the process of ``label``; returns before it is up."""
        self._backends[label] = backend
        self._workers[label] = Worker(backend, self._nursery, self._waiting)

    def introduce(self, request: messages.Introduce) -> dict[str, messages.Introduction | WorkerLost]:
        """Ask all that haven't been asked yet, side by side; they may take as long as compiling may.

        All of them import torch first, which from a cold disk takes a minute and more.
        """
        new = [label for label in self._workers if label not in self.measurable]
        answers: dict[str, messages.Introduction | WorkerLost] = {}
        for group in [[label] for label in new] if self.alone else [new]:
            answers |= self._introduce(group, request)
        return answers

    def _introduce(
        self, labels: list[str], request: messages.Introduce
    ) -> dict[str, messages.Introduction | WorkerLost]:
        answers: dict[str, messages.Introduction | WorkerLost] = {}
        for label in labels:
            try:
                self.tell(label, request)
            except WorkerLost as lost:
                answers[label] = lost
        for label in labels:
            if label in answers:
                continue
            try:
                reply = self.reply(label)
            except WorkerLost as lost:
                answers[label] = lost
                continue
            assert isinstance(reply, messages.Introduction)
            self.measurable[label] = reply.measurable
            self.to_build[label] = reply.to_build
            if reply.compiles or not reply.measurable.yes:
                self.slow.add(label)
            if not reply.steers:
                self.unsteered.add(label)
            answers[label] = reply
        return answers

    def ask(self, label: str, request: messages.Request, *descriptors: int) -> messages.Reply:
        """One question to one worker, started anew where it was lost; raises WorkerLost."""
        self.tell(label, request, *descriptors)
        return self.reply(label)

    def tell(self, label: str, request: messages.Request, *descriptors: int) -> None:
        """The first half of ``ask``: hand ``request`` over and go on; raises WorkerLost."""
        worker = self._workers.get(label)
        if worker is None:
            worker = self._workers[label] = Worker(self._backends[label], self._nursery, self._waiting)
        self._told[label] = request
        try:
            worker.tell(request, descriptors)
        except WorkerLost:
            self.discard(label)
            raise

    def answers(self, label: str, seconds: float) -> bool:
        """Whether a reply, or the worker's end, comes within ``seconds``."""
        return self._workers[label].answers(seconds)

    def reply(self, label: str) -> messages.Reply:
        """The second half of ``ask``: wait for the reply; raises WorkerLost, too, where it makes no sense.

        Raises NurseryLost where all workers are lost at once.
        """
        request = self._told[label]
        if isinstance(request, messages.Introduce | messages.Prepare):
            timeout = max(self._timeout_seconds, self._compile_timeout_seconds)
        else:
            timeout = self._timeout_seconds
            if isinstance(request, messages.Release):
                timeout = min(timeout, _RELEASE_SECONDS)
        try:
            reply = self._workers[label].reply(timeout)
            if nonsense := sense.nonsense(request, reply):
                raise WorkerLost("failed", f"its process sent what is no reply: {nonsense}")
            if self._nursery is not None and self._nursery.resume() and len(self._told) == 1:
                raise WorkerLost("failed", "it stopped its parent, the process that workers are started from")
        except WorkerLost:
            self.discard(label)
            raise
        del self._told[label]
        return reply

    def discard(self, label: str) -> None:
        """End a worker whose process can no longer be trusted; the next question starts another."""
        self._told.pop(label, None)
        worker = self._workers.pop(label, None)
        if worker is not None:
            worker.stop()
        if self._nursery is not None and not self._nursery.is_gone():
            self._nursery.sweep({worker.pid for worker in self._workers.values()})

    def release(self, labels: Iterable[str]) -> dict[str, WorkerLost]:
        """Have workers drop their tensors, side by side; those that were lost over it."""
        told, lost = [], {}
        for label in labels:
            self.unanswered.pop(label, None)
            if label in self._workers:
                try:
                    self.tell(label, messages.Release())
                    told.append(label)
                except WorkerLost as error:
                    lost[label] = error
        for label in told:
            try:
                self.reply(label)
            except WorkerLost as error:
                lost[label] = error
        return lost

    def renew(self, alone: bool, without: Iterable[str] = ()) -> None:
        """Begin again with another nursery and fresh workers, but none for the labels ``without``.

        ``alone``: from now on nobody works beside another, so that it is known who ends them all.
        """
        self._stop()
        self._told.clear()
        self.alone = alone
        self._open_nursery()
        self._workers = {
            label: Worker(self._backends[label], self._nursery, self._waiting)
            for label in self._workers
            if label not in without
        }

    def _open_nursery(self) -> None:
        self._nursery = Nursery(process.environment(), self._forks, self._waiting) if nursery.available() else None

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        if self._nursery is not None:
            self._nursery.stop()
