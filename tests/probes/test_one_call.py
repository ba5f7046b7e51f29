"""The process that a profiler watches: it prepares, warms up and makes one call."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import msgspec
import pytest
import torch

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, Call
from rls_bench.probes import one_call
from rls_bench.problems import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


def test_the_call_is_made_in_a_process_of_its_own() -> None:
    line = one_call.command("eager", Problem(1, 2, 1, 7, 9, 16, 16, inputs="random"))
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_backend_that_nobody_registered_ends_it_with_an_error() -> None:
    done = subprocess.run(one_call.command("nope", Problem(1, 1, 1, 1, 1, 16, 16)), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("got 'nope'")


def test_the_profiler_sees_one_warm_call_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class FakeBackend(Backend):
        def prepare(self, inputs: Inputs) -> Call:
            events.append("prepare")
            return lambda: events.append("call")

    monkeypatch.setattr(registry, "get", lambda name: FakeBackend())
    monkeypatch.setattr(draw, "draw", lambda problem: SimpleNamespace(problem=problem, scale=1.0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: events.append("start"))
    monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: events.append("stop"))
    one_call.main("fake", msgspec.json.encode(Problem(1, 1, 1, 1, 1, 16, 16, device="cuda")).decode())
    assert events == ["prepare", "call", "call", "call", "wait", "start", "call", "wait", "stop"]
