"""Who measures what next, until every cell is measured on as many machines of each kind as were asked for.

The driver knows devices by their answers alone. Each has at most one task: one problem with the backends that it still
lacks, which then take turns on one machine as in any run. A task whose device is lost is given to another of its kind.
What is done stands in the folder, so that a driver that is killed and started again goes on where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from rls_bench.errors import RlsBenchError
from rls_bench.fleet import folder as folders
from rls_bench.fleet import kinds
from rls_bench.fleet.folder import Folder
from rls_bench.fleet.kinds import Node, Slot
from rls_bench.fleet.ledger import How, Ledger
from rls_bench.fleet.words import Hello, Lost, Measured
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Record
from rls_bench.runner.plan import Plan

Answer = Hello | Measured | Lost
# A device that fails so often in a row has a fault of its own.
_MOST_FAILURES = 3
_LOOK_SECONDS = 0.5
_RECORDS = msgspec.json.Decoder(Record)


class Cluster(Protocol):
    """What carries the calls. A device answers once to ``start``, then once to each ``ask``."""

    def nodes(self) -> list[Node]:
        """The nodes that live."""

    def start(self, slot: Slot) -> int:
        """Take hold of a device; the number by which it answers, with a Hello or Lost."""

    def ask(self, device: int, plan: bytes) -> None:
        """Have a device carry out a plan; it answers with Measured or Lost."""

    def answers(self, timeout_seconds: float) -> list[tuple[int, Answer]]:
        """What has come in; waits for the first answer."""

    def stop(self, device: int) -> None:
        """Let go of a device, and end what it does."""


@dataclass(frozen=True)
class Order:
    """What a fleet is asked to do: ``problems`` are those for a device, ``cpu`` or ``cuda``.

    ``plan`` says how hard each task tries; its problems and backends are replaced. Each cell is measured on
    ``per_kind`` machines of each of ``kinds``. A task is tried again ``retries`` times. ``wait_seconds`` is how long a
    kind with cells to measure may have no device at work.
    """

    kinds: tuple[str, ...]
    problems: Callable[[Hello], list[Problem]]
    backends: tuple[str, ...]
    plan: Plan
    per_kind: int = 1
    retries: int = 2
    wait_seconds: float = 0.0


@dataclass
class Device:
    """A device that has been taken hold of; ``hello`` is None until it has answered."""

    slot: Slot
    hello: Hello | None = None
    name: str = ""
    versions: str = ""
    task: Task | None = None
    failures: int = 0
    done: int = 0

    @property
    def is_idle(self) -> bool:
        return self.hello is not None and self.task is None


@dataclass(frozen=True)
class Task:
    """One problem with some backends, under way as ``attempt`` of the ledger."""

    problem: Problem
    backends: tuple[str, ...]
    attempt: str


@dataclass
class Outcome:
    """How a fleet's run ended. ``missing`` says per kind how many cells, of all that were asked for, are not there."""

    hellos: dict[tuple[str, str], Hello] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True)
class State:
    """What a display shows: the devices, and per kind how many cells are measured, of how many."""

    devices: Sequence[Device]
    counts: dict[str, tuple[int, int]]


def run(
    order: Order,
    cluster: Cluster,
    folder: Folder,
    ledger: Ledger,
    progress: Callable[[State], None] = lambda state: None,
) -> Outcome:
    """Measure what is missing in ``folder``. Ctrl-C ends it and keeps what is measured.

    Raises RlsBenchError at once where nobody has one of the kinds and the order does not wait.
    """
    return _Driver(order, cluster, folder, ledger, progress).run()


class _Driver:
    def __init__(
        self, order: Order, cluster: Cluster, folder: Folder, ledger: Ledger, progress: Callable[[State], None]
    ) -> None:
        self._order = order
        self._cluster = cluster
        self._folder = folder
        self._ledger = ledger
        self._progress = progress
        self._devices: dict[int, Device] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._failures: dict[tuple[str, str], list[str]] = {}
        # Devices that are asked no more.
        self._unfit: set[Slot] = set()
        self._seen = dict.fromkeys(order.kinds, time.monotonic())
        self._outcome = Outcome()
        # When the nodes were last looked at; long ago where that may be worth doing again at once.
        self._looked = -math.inf

    def run(self) -> Outcome:
        try:
            if not self._order.wait_seconds:
                self._check_kinds()
            while True:
                if time.monotonic() - self._looked >= _LOOK_SECONDS:
                    self._take_hold()
                self._hand_out()
                self._progress(
                    State([*self._devices.values()], {kind: self._count(kind) for kind in self._order.kinds})
                )
                if not self._is_waiting() and self._looked > -math.inf:
                    break
                for number, answer in self._cluster.answers(_LOOK_SECONDS):
                    self._take_in(number, answer)
        except KeyboardInterrupt:
            self._outcome.interrupted = True
        finally:
            for number in [*self._devices]:
                self._let_go(number, "interrupted", "the run was ended before it was done")
        self._conclude()
        return self._outcome

    def _check_kinds(self) -> None:
        nodes = self._cluster.nodes()
        if lacking := [kind for kind in self._order.kinds if not kinds.slots(kind, nodes)]:
            raise RlsBenchError(
                f"--on: nobody here has {' or '.join(lacking)}; there is {kinds.offered(nodes)}. "
                "--wait SECONDS waits for a node that does"
            )

    def _take_hold(self) -> None:
        """Start what is there and may be needed; let go of what isn't."""
        self._looked = time.monotonic()
        nodes = self._cluster.nodes()
        held = {device.slot for device in self._devices.values()}
        for kind in self._order.kinds:
            if kind in self._problems and not any(self._wanted(kind)):
                for number in [n for n, device in self._devices.items() if device.slot.kind == kind and device.is_idle]:
                    self._let_go(number)
                continue
            for slot in kinds.slots(kind, nodes):
                if slot not in held and slot not in self._unfit:
                    self._devices[self._cluster.start(slot)] = Device(slot)
        for device in self._devices.values():
            # One that has nothing to do may wait for others in vain.
            if not device.is_idle:
                self._seen[device.slot.kind] = time.monotonic()

    def _hand_out(self) -> None:
        for number, device in self._devices.items():
            if device.is_idle and (found := self._next(device)):
                problem, backends = found
                assert device.hello is not None
                attempt = self._ledger.began(
                    device.slot.kind, problem.title, [*backends], device.name, device.slot.node, device.hello.pid
                )
                device.task = Task(problem, backends, attempt)
                plan = replace(self._order.plan, problems=[problem], backends=[*backends])
                self._cluster.ask(number, msgspec.json.encode(plan))

    def _next(self, device: Device) -> tuple[Problem, tuple[str, ...]] | None:
        """What the device should do: a problem that it has begun before a fresh one, before one that others began."""
        kind, own = device.slot.kind, folders.slug(device.name)
        best: tuple[Problem, tuple[str, ...]] | None = None
        least = 3
        for problem, missing in self._wanted(kind):
            begun = {backend: self._machines(kind, problem, backend) for backend in self._order.backends}
            lacks = tuple(backend for backend in missing if own not in begun[backend])
            if not lacks or self._leaves_to_others(device, problem):
                continue
            rank = 0 if any(own in machines for machines in begun.values()) else 2 if any(begun.values()) else 1
            if rank < least:
                best, least = (problem, lacks), rank
        return best

    def _leaves_to_others(self, device: Device, problem: Problem) -> bool:
        """Whether the device has failed where another one that could has not been tried."""
        kind = device.slot.kind
        failed = self._failures.get((kind, problem.key), [])
        if device.name not in failed:
            return False
        done = [self._machines(kind, problem, backend) for backend in self._order.backends]
        others = {other.name for other in self._of_kind(kind)} - {*failed}
        return any(folders.slug(other) not in machines for other in others for machines in done)

    def _wanted(self, kind: str) -> Iterator[tuple[Problem, list[str]]]:
        """The problems of ``kind`` that want another machine, with the backends that do."""
        under_way = [device.task for device in self._of_kind(kind) if device.task]
        for problem in self._problems.get(kind, ()):
            if len(self._failures.get((kind, problem.key), ())) > self._order.retries:
                continue
            missing = []
            for backend in self._order.backends:
                count = len(self._machines(kind, problem, backend))
                count += sum(task.problem == problem and backend in task.backends for task in under_way)
                if count < self._order.per_kind:
                    missing.append(backend)
            if missing:
                yield problem, missing

    def _take_in(self, number: int, answer: Answer) -> None:
        device = self._devices.get(number)
        if device is None:
            # It was let go before it answered.
            return
        if isinstance(answer, Hello):
            self._greet(device, answer)
        elif isinstance(answer, Measured):
            self._collect(number, device, answer)
        else:
            if device.hello is None:
                self._outcome.troubles.append(f"{device.slot.kind} on {device.slot.machine}: {answer.reason}")
                self._unfit.add(device.slot)
            self._let_go(number, "lost", answer.reason)

    def _greet(self, device: Device, hello: Hello) -> None:
        device.hello = hello
        device.name = _name(device.slot, hello)
        device.versions = folders.mark(hello.versions)
        self._outcome.hellos[device.slot.kind, device.name] = hello
        if device.slot.kind not in self._problems:
            self._problems[device.slot.kind] = self._order.problems(hello)

    def _collect(self, number: int, device: Device, answer: Measured) -> None:
        task, kind = device.task, device.slot.kind
        assert task is not None
        reason = answer.reason
        try:
            records = _RECORDS.decode_lines(answer.records)
        except (msgspec.MsgspecError, ValueError) as error:
            records, reason = [], f"sent what are no records: {error}"
        records = [entry for entry in records if entry.problem.key == task.problem.key]
        if {entry.backend for entry in records} >= {*task.backends}:
            device.done += self._folder.add(kind, device.name, device.versions, records)
            device.task, device.failures = None, 0
            self._ledger.ended(task.attempt, "measured", pid=answer.pid)
            return
        reason = reason or "its process ended without the records of all backends"
        self._ledger.ended(task.attempt, "failed", reason, answer.pid)
        self._fail(device, task, reason)
        device.task, device.failures = None, device.failures + 1
        if device.failures >= _MOST_FAILURES:
            self._outcome.troubles.append(
                f"{kind} on {device.name}: {device.failures} tasks failed in a row, the last: {reason}; not asked again"
            )
            self._unfit.add(device.slot)
            self._let_go(number)

    def _fail(self, device: Device, task: Task, reason: str) -> None:
        kind = device.slot.kind
        failed = self._failures.setdefault((kind, task.problem.key), [])
        failed.append(device.name)
        if len(failed) > self._order.retries:
            self._outcome.troubles.append(
                f"{kind}: {task.problem.title} is given up after {len(failed)} attempts on {', '.join(failed)}; "
                f"the last: {reason}"
            )

    def _let_go(self, number: int, how: How = "lost", reason: str = "") -> None:
        device = self._devices.pop(number)
        self._looked = -math.inf
        if device.task:
            self._ledger.ended(device.task.attempt, how, reason)
            if how == "lost":
                self._fail(device, device.task, reason)
        self._cluster.stop(number)

    def _is_waiting(self) -> bool:
        """Whether anything may still come: a device at work or starting, or a kind that is waited for."""
        if any(not device.is_idle for device in self._devices.values()):
            return True
        now = time.monotonic()
        return any(
            now - self._seen[kind] < self._order.wait_seconds
            for kind in self._order.kinds
            if kind not in self._problems or any(self._wanted(kind))
        )

    def _of_kind(self, kind: str) -> list[Device]:
        return [device for device in self._devices.values() if device.slot.kind == kind]

    def _machines(self, kind: str, problem: Problem, backend: str) -> set[str]:
        versions = {folders.mark(hello.versions) for (each, _), hello in self._outcome.hellos.items() if each == kind}
        return self._folder.machines_with(kind, problem, backend, versions)

    def _count(self, kind: str) -> tuple[int, int]:
        """Cells that are there and cells that were asked for."""
        problems = self._problems.get(kind, [])
        there = [
            min(len(self._machines(kind, problem, backend)), self._order.per_kind)
            for problem in problems
            for backend in self._order.backends
        ]
        return sum(there), len(problems) * len(self._order.backends) * self._order.per_kind

    def _conclude(self) -> None:
        for kind in self._order.kinds:
            there, wanted = self._count(kind)
            if kind not in self._problems and not self._outcome.interrupted:
                self._outcome.missing[kind] = 0
                waited = f" within {self._order.wait_seconds:g} s" if self._order.wait_seconds else ""
                self._outcome.troubles.append(f"{kind}: nobody had it{waited}; nothing was measured")
            elif there < wanted:
                self._outcome.missing[kind] = wanted - there


def _name(slot: Slot, hello: Hello) -> str:
    """A machine's name that lasts: a GPU has a number of its own, whichever of its node it is."""
    uuid = (hello.machine.gpu_uuid or "").removeprefix("GPU-")[:8]
    if uuid:
        return f"{slot.machine}-{uuid}"
    return slot.machine if slot.number == 1 else f"{slot.machine}#{slot.number}"
