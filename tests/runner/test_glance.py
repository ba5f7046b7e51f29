"""What is shown of a run that goes on: the first problem's first launch, where the end is far off."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_records import AGREED, CPU

from rls_bench.cli import tables
from rls_bench.cli.console import Console
from rls_bench.problems.problem import Problem
from rls_bench.runner import journal
from rls_bench.runner.board import Board
from rls_bench.runner.course import Course
from rls_bench.runner.plan import Event, Plan

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
PLAN = Plan([PROBLEM], ["eager", "cpu", "flex", "slow"])


def under_way(folder: Path, events: list[Event], *entries: journal.Entry) -> Course:
    started = journal.Started("run", "2026-11-27T00:00:00Z", PLAN, "0" * 40, False)
    course = Course(started, journal.Journal(folder / "part"), Board(PLAN), events.append, glances=True)
    for entry in (journal.Met(CPU), *entries):
        course.board.apply(entry)
    return course


def took(label: str, nanoseconds: float) -> list[journal.Entry]:
    samples = [nanoseconds, 1.01 * nanoseconds, 0.99 * nanoseconds]
    checked = journal.Checked(label, 0, AGREED, 0.1, None, None, [], {}, measurable=True)
    return [checked, journal.Took(label, 0, 1, "warm", samples)]


@pytest.mark.parametrize(("ahead", "shown"), [(60.0, True), (5.0, False)])
def test_it_is_shown_only_where_the_end_is_far_off(
    ahead: float, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    course = under_way(tmp_path, events, *took("eager", 2e6))
    monkeypatch.setattr(course.outlook, "seconds_ahead", lambda: ahead)
    course.glance(0)
    assert [event.kind for event in events] == (["glance"] if shown else [])


def test_it_gives_no_interval_no_winner_and_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    ended = journal.Ended("flex", 0, "unavailable", "no compiler")
    course = under_way(tmp_path, events, *took("eager", 2e6), *took("cpu", 1e6), *took("slow", 9e6), ended)
    course.board["slow", 0].raced = True
    monkeypatch.setattr(course.outlook, "seconds_ahead", lambda: 60.0)
    course.glance(0)
    (event,) = events
    assert [(each.backend, each.status, each.stopped) for each in event.records] == [
        ("eager", "ok", ""),
        ("cpu", "ok", ""),
        ("flex", "unavailable", ""),
        ("slow", "ok", ""),
    ]
    tables.glance(Console(), event.records, event.message)
    said = capsys.readouterr().out
    assert said.count("±?") == 3
    assert "%" not in said
    assert "fastest" not in said
    assert "preliminary: launch 1 of 3; there are no intervals yet" in said
    assert "in about 60 s" in said


def test_what_nobody_was_timed_on_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    course = under_way(tmp_path, events, journal.Ended("flex", 0, "unavailable", "no compiler"))
    monkeypatch.setattr(course.outlook, "seconds_ahead", lambda: 60.0)
    course.glance(0)
    assert events == []
