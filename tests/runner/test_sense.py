"""What a worker says is checked before it is believed: any line at all, and times that cannot be."""

from __future__ import annotations

import math
import os
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from rls_bench.problems.problem import Problem
from rls_bench.referee import wire
from rls_bench.referee.contents import Contents
from rls_bench.referee.messages import Layout
from rls_bench.runner import messages, sense
from rls_bench.runner.process import Worker, WorkerLost

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16)
SAMPLE = messages.Sample("warm", 2, 1, Contents("seed", 0))
HANDED = [messages.Handed(0, 0, 3), messages.Handed(1, 0, 9)]
SURPRISE = messages.Surprise(Layout(PROBLEM, 1.0, ()), Contents("seed", 0), 3)
SAMPLED = messages.Sampled("ok", samples_ns=[5e6, 5e6], handed=HANDED, calls_ns=10_000_000)


class Unstarted(Worker):
    """The coordinator's end of a worker that is the test itself."""

    def __init__(self) -> None:
        ours, self.theirs = wire.pair()
        self._channel = wire.Channel(ours, messages.Reply)
        self._serial = None
        self.stopped = False
        self._waiting = lambda: None
        self._process = SimpleNamespace(pid=os.getpid())  # type: ignore[assignment]

    def _died(self) -> bool:
        return False

    def stop(self) -> int:
        self.stopped = True
        return 0


def lines(count: int) -> list[bytes]:
    """Bytes that a worker's stray thread or a reused descriptor might write, some of them nearly replies."""
    draw = random.Random(0)
    good = [
        messages.Released(),
        SAMPLED,
        messages.Prepared("ok", handed=3),
        messages.Introduction(messages.Verdict(True), messages.Verdict(True), []),
    ]
    found = []
    for _ in range(count):
        line = bytearray(msgspec.json.encode((draw.randrange(1 << 48), draw.choice(good))))
        for _ in range(draw.choice((0, 0, 1, 3, 40))):
            line[draw.randrange(len(line))] = draw.randrange(256)
        found.append(bytes(line[: draw.choice((len(line), draw.randrange(1, len(line) + 1)))]))
    return found


def test_a_thousand_stray_lines_are_each_the_worker_s_own_fault() -> None:
    for line in lines(1000):
        worker = Unstarted()
        worker.tell(SAMPLE)
        worker.theirs.sendall(line + b"\n")
        with pytest.raises(WorkerLost) as lost:
            worker.reply(5)
        assert lost.value.status == "failed"
        assert lost.value.reason.startswith("its process sent what is no reply")
        assert lost.value.reason.isprintable()
        assert worker.stopped
        worker.theirs.close()


def test_a_line_that_nobody_asked_for_ends_the_worker_at_the_next_question() -> None:
    worker = Unstarted()
    worker.theirs.sendall(b'[1,{"type":"Released"}]\n')
    with pytest.raises(WorkerLost, match="a Released that nobody asked for"):
        worker.tell(SAMPLE)


@pytest.mark.parametrize(
    ("request_", "reply", "why"),
    [
        (SAMPLE, messages.Released(), "a Released in answer to a Sample"),
        (SAMPLE, msgspec.structs.replace(SAMPLED, samples_ns=[5e6]), "1 samples and 2 results; asked for 2"),
        (SAMPLE, msgspec.structs.replace(SAMPLED, samples_ns=[0.0, 1.0]), "samples that are no times"),
        (SAMPLE, msgspec.structs.replace(SAMPLED, handed=HANDED[::-1]), "results of no call"),
        (
            messages.Introduce([PROBLEM]),
            messages.Introduction(messages.Verdict(True), messages.Verdict(True), []),
            "0 answers to 1 problems",
        ),
        (
            messages.Introduce([PROBLEM]),
            messages.Introduction(
                messages.Verdict(True), messages.Verdict(True), [messages.Verdict(True)], to_build=[{}, {}]
            ),
            "2 lists of what is to build for 1 problems",
        ),
        (
            messages.Introduce([PROBLEM]),
            messages.Introduction(
                messages.Verdict(True), messages.Verdict(True), [messages.Verdict(True)], to_build=[{"it": math.nan}]
            ),
            "times that are none",
        ),
    ],
)
def test_a_reply_that_makes_no_sense_is_told(request_: Any, reply: Any, why: str) -> None:
    assert sense.nonsense(request_, reply) == why


def test_a_reply_that_makes_sense_is_taken() -> None:
    assert sense.nonsense(SAMPLE, SAMPLED) == ""
    assert sense.nonsense(SAMPLE, messages.Sampled("ok", "cannot be captured")) == ""


def test_calls_must_fit_into_their_turn_and_fill_it() -> None:
    honest = sense.Clocks(PROBLEM, 2)
    assert all(honest.complaint(SAMPLE, SAMPLED, 12_000_000) == "" for _ in range(20))
    # One turn that was interrupted says nothing; not even three of them beside a full one.
    assert all(honest.complaint(SAMPLE, SAMPLED, 90_000_000) == "" for _ in range(3))

    slow_clock = sense.Clocks(PROBLEM, 2)
    said = [slow_clock.complaint(SAMPLE, SAMPLED, 1_000_000_000) for _ in range(3)]
    assert said[:2] == ["", ""]
    assert "filled 1% of the time" in said[2]

    # Nor is a turn of short calls, most of which is asking and answering.
    short = sense.Clocks(PROBLEM, 2)
    assert all(short.complaint(SAMPLE, SAMPLED, 10_000_000 + sense.BESIDE_NS) == "" for _ in range(20))
    # A worker that had no core for most of its turns is not to blame; they count for nothing, not even as turns.
    starved = sense.Clocks(PROBLEM, 2)
    assert all(starved.complaint(SAMPLE, SAMPLED, 1_000_000_000, 300_000_000) == "" for _ in range(20))
    assert "filled 1% of the time" in [starved.complaint(SAMPLE, SAMPLED, 1_000_000_000) for _ in range(3)][2]

    assert "calls of 10 ms in a turn of 5 ms" in sense.Clocks(PROBLEM, 2).complaint(SAMPLE, SAMPLED, 5_000_000)


def test_no_call_is_faster_than_any_machine_could_be() -> None:
    large = replace(
        PROBLEM, query_length=1024, key_length=1024, head_dim=128, value_dim=128, query_heads=32, kv_heads=32
    )
    instant = messages.Sampled("ok", samples_ns=[100.0, 100.0], handed=HANDED, calls_ns=9_000_000)
    assert "no machine does these products" in sense.Clocks(large, 2).complaint(SAMPLE, instant, 10_000_000)


def test_a_surprise_takes_time() -> None:
    assert sense.nonsense(SURPRISE, messages.Surprised("ok", unseen_ns=9, seen_ns=0)) == ""
    assert sense.nonsense(SURPRISE, messages.Surprised("wrong", "changed its input query")) == ""
    for unseen_ns, seen_ns in ((0, 5), (-1, 5), (5, -1)):
        assert sense.nonsense(SURPRISE, messages.Surprised("ok", unseen_ns=unseen_ns, seen_ns=seen_ns))
    assert sense.nonsense(SURPRISE, SAMPLED)
