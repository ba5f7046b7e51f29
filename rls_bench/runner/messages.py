"""What coordinator and worker say to each other, in letters of ``rls_bench.referee.wire``.

A backend may print what it likes; it never sees the socket. A forked child of a worker loses it, so that it cannot
answer in its parent's name. What a worker says of itself is checked before it is believed (``rls_bench.runner.sense``).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question, Status
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Layout


class Verdict(msgspec.Struct):
    """Yes, or no with the reason: a backend's Support, sent over the wire; ``failed``: it could not even say."""

    yes: bool
    reason: str = ""
    failed: bool = False


class Introduce(msgspec.Struct, tag=True):
    """Say which of these problems you can do."""

    problems: list[Problem]


class Prepare(msgspec.Struct, tag=True):
    """Take the inputs from the sealed memory that comes along, compile, and hand over the results of the first calls.

    ``thorough``: also observe what one launch tells for all. ``timed`` False: agreement is all that is wanted.
    ``contents`` are those of the first call and of the ones after it.
    """

    layout: Layout
    contents: tuple[Contents, Contents]
    timed: bool
    input_bytes: int
    probes: tuple[str, ...] = ()
    thorough: bool = True


class Sample(msgspec.Struct, tag=True):
    """Take ``count`` samples to answer ``question``, after warming up where this is the first time.

    Each of the distinct inputs begins with ``contents``, to whose seed its number is added.
    """

    question: Question
    count: int
    patience_ns: int
    contents: Contents


class Surprise(msgspec.Struct, tag=True):
    """Time a call on the queries in the sealed memory that comes along, which ``layout`` describes and this process
    never saw, after ``calls`` on ``contents``."""

    layout: Layout
    contents: Contents
    calls: int


class CheckCase(msgspec.Struct, tag=True):
    """Is the backend right on this problem; nothing is timed, and no other request is needed."""

    problem: Problem


class Release(msgspec.Struct, tag=True):
    """Drop the problem's tensors."""


Request = Introduce | CheckCase | Prepare | Sample | Surprise | Release


class Introduction(msgspec.Struct, tag=True):
    """``compiles``: preparing takes long, on one core. ``steers`` False: bias and strength are ignored. ``to_build``:
    for each problem what is compiled once for all processes to come, by name, in about how many seconds."""

    available: Verdict
    measurable: Verdict
    supports: list[Verdict]
    compiles: bool = False
    steers: bool = True
    to_build: list[dict[str, float]] = []


class Handed(msgspec.Struct):
    """A result in the tray: of a call on the inputs numbered ``which``, ``steps`` changes of their contents in."""

    slot: int
    which: int
    steps: int


class Prepared(msgspec.Struct, tag=True):
    """``status`` is ok, or what was found wrong; ``call_ns`` is what one call took, ``calls_ns`` all of them.

    ``settings`` are the process's threads and numerics switches as the backend left them.
    """

    status: Status
    reason: str = ""
    handed: int = 0
    compile_seconds: float | None = None
    peak_bytes: int | None = None
    workspace_bytes: int | None = None
    kernels: list[str] = []
    probes: dict[str, dict[str, float | str | None]] = {}
    settings: dict[str, str] = {}
    call_ns: int = 0
    calls_ns: int = 0
    noise: str = ""


class Sampled(msgspec.Struct, tag=True):
    """Nanoseconds a call of each sample; ``began_ns`` and ``ended_ns`` on the machine's monotonic clock.

    ``handed`` holds one result of each sample. A status other than ok says that the samples mean nothing; an empty
    list with status ok means that the backend cannot answer this question, for the reason given.
    """

    status: Status
    reason: str = ""
    samples_ns: list[float] = []
    warmup_ns: list[float] = []
    handed: list[Handed] = []
    calls_ns: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    noise: str = ""


class Surprised(msgspec.Struct, tag=True):
    """What the call on new queries took, and the median of those before it, 0 for none; its result is in slot 0."""

    status: Status
    reason: str = ""
    unseen_ns: int = 0
    seen_ns: int = 0
    calls_ns: int = 0
    noise: str = ""


class CaseChecked(msgspec.Struct, tag=True):
    """How a case went, in ``agreement.conformance``'s words."""

    status: Literal["ok", "unsupported", "wrong", "failed"]
    reason: str = ""


class Released(msgspec.Struct, tag=True):
    pass


Reply = Introduction | CaseChecked | Prepared | Sampled | Surprised | Released
