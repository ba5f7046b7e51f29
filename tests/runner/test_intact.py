"""A backend that puts something of its own in place of the harness's code is seen to."""

from __future__ import annotations

import pytest

from rls_bench.backends.words import one_line, told
from rls_bench.runner.intact import Intact
from rls_bench.timing import stopwatch


def test_nothing_is_changed_at_first() -> None:
    assert Intact().changed() == ""


def test_a_method_a_default_and_a_function_s_code_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    intact = Intact()
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch.Warm, "time", lambda *_: None)
        assert intact.changed() == "rls_bench.timing.stopwatch.Warm.time"
    with monkeypatch.context() as patch:
        patch.setattr(stopwatch.Warm.__init__, "__defaults__", (True, lambda: 0, print))
        assert intact.changed() == "rls_bench.timing.stopwatch.Warm.__init__"
    assert intact.changed() == ""


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
