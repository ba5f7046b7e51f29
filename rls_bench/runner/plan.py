"""What a run is asked to do, what it tells while it works, and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Record

# The first that all can answer is the main one, by which backends race.
QUESTIONS: dict[str, tuple[Question, ...]] = {"cpu": ("warm", "cold"), "cuda": ("graph", "warm", "cold", "host")}


@dataclass(frozen=True)
class Plan:
    """Which backends to measure on which problems, and how hard to try.

    ``launches`` is the least number of process launches of each cell. Sampling of a cell ends when the 95 % interval
    of its median is within ``target_interval`` (relative, half the width), when ``race`` finds it hopeless, or when
    ``budget_seconds``, which is for the whole run, ends; every cell gets its agreement check and a few samples in each
    launch all the same. With ``limit_seconds`` nothing goes on beyond them: what they have no room for is left out,
    later launches first, then the problems named last. No ``questions`` means all that the device has.

    A worker that doesn't answer within ``timeout_seconds`` is killed; one that prepares a problem, and may have to
    compile for it, within ``compile_timeout_seconds``. ``input_bytes`` bounds what the distinct inputs of one cell may
    take.
    """

    problems: list[Problem]
    backends: list[str]
    suite: str = ""
    seed: int = 0
    launches: int = 3
    budget_seconds: float = 120.0
    limit_seconds: float | None = None
    target_interval: float = 0.01
    race: bool = True
    questions: tuple[Question, ...] = ()
    probes: tuple[str, ...] = ()
    timeout_seconds: float = 60.0
    compile_timeout_seconds: float = 300.0
    input_bytes: int = 256 << 20
    aa: bool = True

    def __post_init__(self) -> None:
        if not self.problems or not self.backends:
            raise ValueError(
                f"plan: wanted at least one problem and one backend; got {len(self.problems)} and {len(self.backends)}"
            )
        if len(set(self.backends)) < len(self.backends):
            raise ValueError(f"backends: wanted each name once; got {', '.join(self.backends)}")
        if len({problem.key for problem in self.problems}) < len(self.problems):
            raise ValueError("problems: wanted each once; got the same work twice")
        if self.launches < 1:
            raise ValueError(f"launches: wanted at least 1; got {self.launches}")
        if not self.target_interval > 0:
            raise ValueError(f"target_interval: wanted a share above 0, such as 0.01; got {self.target_interval}")

    def questions_for(self, problem: Problem) -> tuple[Question, ...]:
        """What is asked of ``problem``: the plan's questions that its device has an answer to."""
        known = QUESTIONS[problem.device]
        return tuple(question for question in self.questions or known if question in known)


@dataclass(frozen=True)
class Event:
    """Something that a progress display may want to show; ``share`` of the run is done, from 0 to 1.

    ``glance``: what one launch says of the first problem, in ``records`` that no file holds, where the end is far off.
    """

    kind: Literal["plan", "launch", "checked", "sampled", "closed", "glance"]
    message: str
    share: float
    label: str = ""
    problem: Problem | None = None
    records: Sequence[Record] = ()


@dataclass(frozen=True)
class Effort:
    """Where the wall time of a run went, seconds.

    ``wall`` is ``start`` (processes), ``check`` (inputs, oracle, compiling, every look before timing), ``turns``
    (warm-up and samples) and what the coordinator took. ``compile``, which holds all waiting for workers that
    prepare beside the others, and ``oracle`` are parts of ``check``; ``calls``,
    the time inside backends' calls, is part of both ``check`` and ``turns``; ``sampling`` is the part of it in turns.
    """

    wall: float = 0.0
    start: float = 0.0
    check: float = 0.0
    compile: float = 0.0
    oracle: float = 0.0
    turns: float = 0.0
    calls: float = 0.0
    sampling: float = 0.0

    @property
    def overhead(self) -> float:
        """Share of the wall time, compile apart, that was not spent inside a backend's calls."""
        return 1 - self.calls / max(self.wall - self.compile, 1e-9)

    @property
    def title(self) -> str:
        """One line: where the time went."""
        rest = self.wall - self.start - self.check - self.turns
        checks = self.check - self.compile - self.oracle
        return (
            f"{self.wall:.0f} s: starting processes {self.start:.0f}, compiling {self.compile:.0f}, oracle "
            f"{self.oracle:.0f}, checks {checks:.0f}, turns {self.turns:.0f} ({self.sampling:.0f} in calls), "
            f"the rest {max(0.0, rest):.0f}"
        )


@dataclass(frozen=True)
class Summary:
    """What a run measured: its records as written, its noise floor, what to be wary of, where its time went."""

    run: str
    records: list[Record]
    noise_floor: float | None
    warnings: list[str] = field(default_factory=list)
    effort: Effort = field(default_factory=Effort)
    interrupted: bool = False
    # Cells that an interrupted run, or one with a limit, never reached; ``resume`` goes on with them.
    unmeasured: int = 0
    # What the limit had no room for, in words.
    left_out: str = ""
