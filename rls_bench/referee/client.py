"""The referee, seen from those who ask: a process of its own, started anew where it was lost."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rls_bench.errors import RlsBenchError
from rls_bench.machines.machine import Machine
from rls_bench.records.record import Agreement
from rls_bench.referee import wire
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import (
    Describe,
    Described,
    Draw,
    Drawn,
    DrawUnseen,
    Failed,
    Judged,
    JudgeResult,
    Layout,
    Reply,
)
from rls_bench.referee.messages import Request as _Request
from rls_bench.referee.wire import Channel, Closed, Garbled, Letter

# The oracle of the largest problems takes minutes on a CPU.
_PATIENCE_SECONDS = 1800.0
_LOOK_SECONDS = 0.25
_TRIES = 3


class RefereeLost(RlsBenchError):
    """The referee's process cannot be started, or cannot judge this problem."""


class Referee:
    """Asks one referee. ``environment`` are its process's variables; this process's own by default.

    ``waiting`` is called several times a second while an answer is waited for; what it raises ends the wait.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, waiting: Callable[[], None] = lambda: None
    ) -> None:
        self._waiting = waiting
        given = dict(os.environ if environment is None else environment)
        self._environment = given | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def __enter__(self) -> Referee:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that judges."""
        assert self._process is not None
        return self._process.pid

    def machine(self) -> Machine:
        """The machine, as a process finds it that no backend was loaded in."""
        reply = self._ask(Describe()).message
        assert isinstance(reply, Described)
        return reply.machine

    def draw(self, draw: Draw) -> tuple[int, Layout]:
        """A descriptor of the draws in sealed memory, the caller's to close, and what lies where in it."""
        letter = self._ask(draw)
        assert isinstance(letter.message, Drawn)
        return letter.descriptors[0], letter.message.layout

    def draw_unseen(self, draw: Draw, salt: str) -> tuple[int, Layout]:
        """As ``draw``, of queries alone that nobody has seen before, for what ``draw`` drew."""
        letter = self._ask(DrawUnseen(draw, salt))
        assert isinstance(letter.message, Drawn)
        return letter.descriptors[0], letter.message.layout

    def judge(
        self,
        draw: Draw,
        contents: Contents,
        tray: int,
        slot: int,
        steers: bool,
        repeats: int | None = None,
        unseen: str = "",
    ) -> Agreement:
        """Whether the result in a slot of ``tray`` is right; with ``repeats``, whether it is that slot's once more.

        ``unseen``: the salt of the queries, where they were drawn apart.
        """
        reply = self._ask(JudgeResult(draw, contents, slot, steers, repeats, unseen), tray).message
        assert isinstance(reply, Judged)
        return reply.agreement

    def stop(self) -> None:
        """End the process; stopping twice is harmless."""
        self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: _Request, *descriptors: int) -> Letter:
        """The answer; another referee is asked where one was lost, for all that it knows can be drawn again."""
        for _ in range(_TRIES):
            serial = secrets.randbits(48)
            try:
                self._channel.send(serial, request, descriptors)
                letter = self._receive()
                if letter.serial != serial:
                    raise Garbled("an answer to another question")
            except (Closed, Garbled):
                self.stop()
                self._start()
                continue
            if isinstance(letter.message, Failed):
                raise RefereeLost(f"the referee cannot judge this problem: {letter.message.reason}")
            return letter
        raise RefereeLost(f"the referee's process was lost {_TRIES} times over one question; is there memory enough?")

    def _receive(self) -> Letter:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._waiting()
            if (letter := self._channel.receive(_LOOK_SECONDS)) is not None:
                return letter
            assert self._process is not None
            if self._process.poll() is not None:
                raise Closed("its process is gone")
        raise Closed(f"no answer within {_PATIENCE_SECONDS:g} s")

    def _start(self) -> None:
        ours, theirs = wire.pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rls_bench.referee.service", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=self._environment,
            )
        self._channel = Channel(ours, Reply, takes_descriptors=True)
