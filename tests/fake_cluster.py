"""A fleet without Ray: a cluster in memory whose nodes answer by a clock of its own, and die when told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import drawn_records
import msgspec

from rls_bench.fleet.driver import Answer, Order
from rls_bench.fleet.kinds import Node, Slot
from rls_bench.fleet.words import Hello, Lost, Measured
from rls_bench.problems.problem import Problem
from rls_bench.runner import Plan

BACKENDS = ("eager", "sdpa-cpu")
PROBLEMS = [drawn_records.problem(length) for length in (256, 512, 1024)]


def order(*kinds: str, **changes: object) -> Order:
    """Three problems by two backends on each of ``kinds``."""
    plan = Plan(PROBLEMS[:1], [*BACKENDS])
    return replace(Order(kinds, lambda hello: PROBLEMS, BACKENDS, plan), **changes)  # type: ignore[arg-type]


def node(machine: str, **resources: float) -> Node:
    """A node with resources such as ``h100=1``."""
    return Node(f"id-{machine}", machine, {f"gpu:{kind}": count for kind, count in resources.items()})


def measured(plan: Plan, scale: float = 1.0) -> Measured:
    """What a runner would send for ``plan``: latencies that are ``scale`` × those of other machines."""
    work: Problem = plan.problems[0]
    centre = 1e6 * work.key_length * scale
    launches = [[centre * (1 + 0.001 * launch + 0.0001 * n) for n in range(9)] for launch in range(3)]
    records = [drawn_records.record(backend, work, launches, run=f"run-{work.key_length}") for backend in plan.backends]
    return Measured(1, 0, b"".join(msgspec.json.encode(entry) + b"\n" for entry in records))


@dataclass
class FakeCluster:
    """Answers in the order of asking; ``before_answer`` may change the nodes, ``answer`` says what a task gives."""

    living: list[Node]
    answer: Callable[[Slot, Plan], Answer] = lambda slot, plan: measured(plan)
    hello: Callable[[Slot], Answer] = lambda slot: Hello(drawn_records.CPU, "cpu", "1.0", "c" * 40, 7)
    before_answer: Callable[[FakeCluster, int], None] = lambda cluster, step: None
    asked: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    slots: dict[int, Slot] = field(default_factory=dict)
    calls: list[tuple[int, bytes | None]] = field(default_factory=list)
    steps: int = 0
    count: int = 0

    def nodes(self) -> list[Node]:
        return self.living

    def start(self, slot: Slot) -> int:
        self.count += 1
        self.slots[self.count] = slot
        self.calls.append((self.count, None))
        return self.count

    def ask(self, device: int, plan: bytes) -> None:
        self.calls.append((device, plan))

    def answers(self, timeout_seconds: float) -> list[tuple[int, Answer]]:
        self.steps += 1
        self.before_answer(self, self.steps)
        if not self.calls:
            return []
        device, words = self.calls.pop(0)
        slot = self.slots[device]
        if slot.node not in [each.id for each in self.living]:
            return [(device, Lost("its node is dead"))]
        if words is None:
            return [(device, self.hello(slot))]
        plan = msgspec.json.decode(words, type=Plan)
        self.asked.append((slot.machine, plan.problems[0].title, tuple(plan.backends)))
        return [(device, self.answer(slot, plan))]

    def stop(self, device: int) -> None:
        self.calls = [call for call in self.calls if call[0] != device]
        del self.slots[device]
