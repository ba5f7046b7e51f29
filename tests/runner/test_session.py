"""A run end to end, with real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from rls_bench.errors import UnknownBackend
from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.runner import Event, Plan, course, journal, outlook, run

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")


def test_a_run_measures_each_cell_in_each_launch_and_its_twin(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    summary = run(
        Plan([PROBLEM], ["fakes:HEALTHY"], launches=2, budget_seconds=5, race=False, questions=("warm",)), out
    )

    records = list(record.read(out))
    assert records == summary.records
    assert [entry.label for entry in records] == ["fakes:HEALTHY", "fakes:HEALTHY#2"]
    for entry in records:
        assert entry.status == "ok", entry.reason
        assert len(entry.samples_ns["warm"]) >= 2
        assert all(len(launch) >= 3 for launch in entry.samples_ns["warm"])
        assert entry.noise_floor == summary.noise_floor is not None
    assert not list(tmp_path.glob("*.part"))


def test_an_unknown_backend_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend, match="nonesuch"):
        run(Plan([PROBLEM], ["nonesuch"]), tmp_path / "results.jsonl")
    assert not list(tmp_path.iterdir())


def test_the_twin_takes_part_in_every_problem_of_the_first_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "_GLANCE_SECONDS", 0.0)
    problems = [PROBLEM, replace(PROBLEM, key_length=40)]
    plan = Plan(problems, ["fakes:HEALTHY"], launches=1, budget_seconds=2, questions=("warm",))
    events: list[Event] = []
    records = run(plan, tmp_path / "results.jsonl", progress=events.append, glances=True).records
    assert {entry.label for entry in records if entry.problem == problems[1]} == {"fakes:HEALTHY", "fakes:HEALTHY#2"}
    first = events[: next((i for i, e in enumerate(events) if e.message.startswith("launch 2")), len(events))]
    assert [e for e in first if e.kind == "checked" and e.label == "fakes:HEALTHY#2" and e.problem == problems[1]]
    # What is known of the first problem is shown once, before the second has begun.
    (shown,) = [number for number, event in enumerate(events) if event.kind == "glance"]
    assert [event.problem for event in events[:shown] if event.kind == "sampled"]
    assert problems[1] not in [event.problem for event in events[:shown]]
    (glanced,) = events[shown].records
    assert (glanced.label, len(glanced.samples_ns["warm"])) == ("fakes:HEALTHY", 1)


def test_a_look_doesnt_wait_for_those_that_compile_and_its_turns_dont_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "_GLANCE_SECONDS", 0.0)
    monkeypatch.setattr(outlook, "_LOOK_SECONDS", 0.0)
    told: list[Event | journal.Entry] = []
    note = course.Course.note
    monkeypatch.setattr(course.Course, "note", lambda self, entry: (told.append(entry), note(self, entry)))
    plan = Plan([PROBLEM], ["fakes:HEALTHY", "fakes:COMPILING"], launches=1, budget_seconds=1, questions=("warm",))
    records = run(plan, tmp_path / "results.jsonl", progress=told.append, glances=True).records
    (shown,) = [number for number, each in enumerate(told) if isinstance(each, Event) and each.kind == "glance"]
    glance = told[shown]
    assert isinstance(glance, Event)
    assert [entry.label for entry in glance.records] == ["fakes:HEALTHY"]
    assert "a first look, without fakes:COMPILING, which take longer to get ready" in glance.message
    known = {each.label for each in told[:shown] if isinstance(each, journal.Checked | journal.Took)}
    assert known == {"fakes:HEALTHY"}
    assert told[shown + 1] == journal.Redone(0, 1)
    after = [len(each.samples_ns) for each in told[shown:] if isinstance(each, journal.Took) and not each.rejected]
    assert sum(len(launch) for entry in records for launch in entry.samples_ns["warm"]) == sum(after)
    assert {entry.backend: entry.status for entry in records} == dict.fromkeys(plan.backends, "ok")


@pytest.mark.slow
def test_a_limit_ends_a_wait_that_would_be_far_longer_and_says_what_it_left_out(tmp_path: Path) -> None:
    plan = Plan([PROBLEM], ["fakes:HANG"], limit_seconds=8.0, timeout_seconds=600.0, compile_timeout_seconds=600.0)
    began = time.monotonic()
    summary = run(plan, tmp_path / "results.jsonl")
    assert time.monotonic() - began < 300
    assert summary.records == []
    assert summary.unmeasured == 1
    assert not summary.interrupted
    assert summary.left_out == PROBLEM.title


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0])
def test_a_signal_at_any_moment_ends_every_process_of_a_run(seconds: float, tmp_path: Path) -> None:
    name, value = "RLS_BENCH_TEST_RUN", str(tmp_path)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)])
    command = [sys.executable, "-m", "rls_bench", "run", "--suite", "smoke", "--budget", "120"]
    command += ["--backend", "fakes:HEALTHY", "--backend", "eager", "--out", str(tmp_path / "results.jsonl")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, name: value}, stdout=subprocess.DEVNULL)
    try:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=100)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while alive(f"{name}={value}") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(f"{name}={value}") == []


def alive(mark: str) -> list[str]:
    """The processes with ``mark`` among their variables."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        # Over, or somebody else's.
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found
