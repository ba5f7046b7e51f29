"""Which backend does a problem, and how often it is asked."""

from __future__ import annotations

import pytest
from drawn_records import problem
from faulty_backends import Right

from rls_bench.backends import registry
from rls_bench.backends.interface import YES, Support, no
from rls_bench.errors import BackendUnavailable
from rls_bench.policy import dispatch


class Counting(Right):
    """Says how often it was asked whether it is available."""

    def __init__(self, *answers: Support) -> None:
        self.answers = list(answers)

    def available(self) -> Support:
        return self.answers.pop(0)


def test_a_named_backend_that_is_available_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.LOADED, "counting", Counting(YES))
    assert [dispatch.resolve("counting", problem()) for _ in range(3)] == ["counting"] * 3


def test_one_that_is_not_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.LOADED, "counting", Counting(no("no compiler"), YES))
    with pytest.raises(BackendUnavailable, match="'counting': no compiler"):
        dispatch.resolve("counting", problem())
    assert dispatch.resolve("counting", problem()) == "counting"
