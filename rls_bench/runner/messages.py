"""What coordinator and worker say to each other: one JSON line a message, over private pipes.

A backend may print what it likes; it never sees these descriptors. A forked child of a worker loses them, so that it
cannot answer in its parent's name.
"""

from __future__ import annotations

import os
import select
import time

import msgspec

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Agreement, Question, Status


class Verdict(msgspec.Struct):
    """Yes, or no with the reason: a backend's Support, sent over the wire."""

    yes: bool
    reason: str = ""


class Introduce(msgspec.Struct, tag=True):
    """Say who you are and which of these problems you can do."""

    problems: list[Problem]


class Prepare(msgspec.Struct, tag=True):
    """Draw inputs, compile, and check the output.

    Without ``fingerprint`` this is the whole check of the first launch; with it, the fingerprint of the output that
    agreed then, a later launch must only give that again. ``timed`` False: agreement is all that is wanted.
    """

    problem: Problem
    timed: bool
    input_bytes: int
    probes: tuple[str, ...] = ()
    fingerprint: list[float] = []


class Sample(msgspec.Struct, tag=True):
    """Take ``count`` samples to answer ``question``, after warming up where this is the first time."""

    question: Question
    count: int
    patience_ns: int


class Release(msgspec.Struct, tag=True):
    """Drop the problem's tensors."""


Request = Introduce | Prepare | Sample | Release


class Introduction(msgspec.Struct, tag=True):
    """``compiles``: preparing takes long, on one core."""

    machine: Machine
    available: Verdict
    measurable: Verdict
    supports: list[Verdict]
    compiles: bool = False


class Prepared(msgspec.Struct, tag=True):
    """``status`` is ok, or what was found wrong; ``call_ns`` is what one call took, ``calls_ns`` all of
    them; ``oracle_seconds`` went into the answer that every backend is held against."""

    status: Status
    reason: str = ""
    agreement: Agreement | None = None
    compile_seconds: float | None = None
    peak_bytes: int | None = None
    workspace_bytes: int | None = None
    kernels: list[str] = []
    probes: dict[str, dict[str, float | str | None]] = {}
    fingerprint: list[float] = []
    call_ns: int = 0
    calls_ns: int = 0
    oracle_seconds: float = 0.0
    noise: str = ""


class Sampled(msgspec.Struct, tag=True):
    """Nanoseconds a call of each sample; ``began_ns`` and ``ended_ns`` on the machine's monotonic clock.

    A status other than ok says that the samples mean nothing; an empty list with status ok means that the backend
    cannot answer this question, for the reason given.
    """

    status: Status
    reason: str = ""
    samples_ns: list[float] = []
    warmup_ns: list[float] = []
    calls_ns: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    noise: str = ""


class Released(msgspec.Struct, tag=True):
    pass


Reply = Introduction | Prepared | Sampled | Released


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One side's pair of descriptors: whole messages in, whole messages out."""

    def __init__(self, incoming: int, outgoing: int, accepts: object) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._buffer = b""
        self._decoder: msgspec.json.Decoder[Request | Reply] = msgspec.json.Decoder(accepts)

    def send(self, message: Request | Reply) -> None:
        """Write one message; raises Closed where nobody reads."""
        line = msgspec.json.encode(message) + b"\n"
        try:
            while line:
                line = line[os.write(self._outgoing, line) :]
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, timeout_seconds: float | None = None) -> Request | Reply | None:
        """The next message, or None after ``timeout_seconds``; blocks without spinning. Raises Closed at the end."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._incoming], [], [], left)[0]:
                return None
            try:
                chunk = os.read(self._incoming, 1 << 16)
            except OSError as error:
                raise Closed(str(error)) from error
            if not chunk:
                raise Closed("end of stream")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._decoder.decode(line)

    def close(self) -> None:
        """Close both descriptors; closing twice is harmless."""
        for descriptor in (self._incoming, self._outgoing):
            if descriptor >= 0:
                os.close(descriptor)
        self._incoming = self._outgoing = -1
