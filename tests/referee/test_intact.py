"""A backend that puts something of its own in place of the harness's code is seen to."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from rls_bench.backends.words import one_line, told
from rls_bench.referee import checking
from rls_bench.referee.intact import Intact
from rls_bench.timing import stopwatch


def test_nothing_is_changed_at_first() -> None:
    assert Intact().changed() == ""


def test_a_method_a_default_a_constant_a_module_and_a_timer_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    intact = Intact()
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch.Warm, "time", lambda *_: None)
        assert intact.changed() == "rls_bench.timing.stopwatch.Warm.time"
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch.Warm.__init__, "__defaults__", (True, lambda: 0, print))
        assert intact.changed() == "rls_bench.timing.stopwatch.Warm.__init__"
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch.Warm, "least_ns", 1)
        assert intact.changed() == "rls_bench.timing.stopwatch.Warm.least_ns"
    with monkeypatch.context() as patch:
        patch.setattr(checking, "stopwatch", SimpleNamespace())
        assert intact.fault() == "it put something of its own in place of rls_bench.referee.checking.stopwatch"
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter_ns", lambda: 0)
        assert intact.fault() == "it put a timer of its own in place of time.perf_counter_ns"
    assert intact.fault() == ""


def test_words_are_one_printable_line_with_their_place() -> None:
    try:
        raise RuntimeError("bad path \udcff\x1b[31m\nsecond")
    except RuntimeError as error:
        words = told(error)
    assert words.startswith("RuntimeError: bad path \\udcff\\x1b[31m second (test_intact.py:")
    assert words.isprintable()
    assert len(one_line("long " * 1000)) == 300


def test_an_error_that_cannot_even_be_told_is_named_by_its_type() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert told(Mute()) == "Mute: ?"
