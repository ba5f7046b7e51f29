"""A workbench and its judge in the test's own process, asked as a coordinator would ask them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from rls_bench.problems.problem import Problem
from rls_bench.referee import pool, sealed
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Draw, DrawUnseen, JudgeResult
from rls_bench.referee.service import Service
from rls_bench.runner import messages
from rls_bench.runner.workbench import Workbench

CONTENTS = Contents("first", 0), Contents("second", 1)


@dataclass
class Judged:
    """One worker's replies, and what the referee makes of the results that it hands over."""

    name: str
    problem: Problem
    steers: bool = True
    tray: int = field(default_factory=sealed.tray)

    def __post_init__(self) -> None:
        self.service = Service()
        self.bench = Workbench(self.name, self.tray)

    def prepare(self, timed: bool = True, input_bytes: int = 1 << 20, thorough: bool = True) -> messages.Prepared:
        """The reply to a Prepare, its status that of the referee's verdict where the worker saw nothing wrong."""
        self.draw = Draw(self.problem, "salt", excerpt=not timed)
        memory, layout = pool.fill(self.problem, "salt", excerpt=not timed)
        reply = self.bench.answer(messages.Prepare(layout, CONTENTS, timed, input_bytes, (), thorough), [memory])
        assert isinstance(reply, messages.Prepared)
        asked = [(CONTENTS[0], None), (CONTENTS[1], None), (CONTENTS[1], 1)][: reply.handed]
        for slot, (contents, repeats) in enumerate(asked):
            if reply.status == "ok":
                self._judge(reply, contents, slot, repeats)
        return reply

    def sample(self, question: str = "warm", count: int = 3, patience_ns: int = 50_000_000) -> messages.Sampled:
        """The reply to a Sample, judged likewise by every result handed over."""
        contents = Contents("turn", 1)
        reply = self.bench.answer(messages.Sample(question, count, patience_ns, contents), [])  # type: ignore[arg-type]
        assert isinstance(reply, messages.Sampled)
        for handed in reply.handed:
            if reply.status == "ok":
                self._judge(reply, contents.of(handed.which, handed.steps), handed.slot, None)
        return reply

    def surprise(self, calls: int = 3) -> messages.Surprised:
        """The reply to a Surprise, judged."""
        (memory,) = self.service.answer(DrawUnseen(self.draw, "secret"), [])[1]
        layout = self.service.answer(DrawUnseen(self.draw, "secret"), [])[0].layout  # type: ignore[union-attr]
        contents = Contents("last", 1)
        reply = self.bench.answer(messages.Surprise(layout, contents, calls), [os.dup(memory)])
        assert isinstance(reply, messages.Surprised)
        if reply.status == "ok":
            self._judge(reply, contents.of(0), 0, None, unseen="secret")
        return reply

    def _judge(
        self,
        reply: messages.Prepared | messages.Sampled | messages.Surprised,
        contents: Contents,
        slot: int,
        repeats: int | None,
        unseen: str = "",
    ) -> None:
        request = JudgeResult(self.draw, contents, slot, self.steers, repeats, unseen)
        tray = os.dup(self.tray)
        verdict, _ = self.service.answer(request, [tray])
        os.close(tray)
        if not verdict.agreement.passed:  # type: ignore[union-attr]
            reply.status, reply.reason = "wrong", verdict.agreement.reason  # type: ignore[union-attr]


class LocalReferee:
    """A referee without a process of its own, for tests that try many kernels."""

    def __init__(self) -> None:
        self._service = Service()

    def draw(self, draw: Draw) -> tuple[int, Any]:
        reply, (memory,) = self._service.answer(draw, [])
        return os.dup(memory), reply.layout  # type: ignore[union-attr]

    def draw_unseen(self, draw: Draw, salt: str) -> tuple[int, Any]:
        reply, (memory,) = self._service.answer(DrawUnseen(draw, salt), [])
        return os.dup(memory), reply.layout  # type: ignore[union-attr]

    def judge(
        self,
        draw: Draw,
        contents: Contents,
        tray: int,
        slot: int,
        steers: bool,
        repeats: int | None = None,
        unseen: str = "",
    ) -> Any:
        reply, _ = self._service.answer(JudgeResult(draw, contents, slot, steers, repeats, unseen), [tray])
        return reply.agreement  # type: ignore[union-attr]
