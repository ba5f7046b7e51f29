"""asv's suite of one's own problems: there where the variable names some, and of the very problems that it says."""

from __future__ import annotations

import importlib

import pytest

from rls_bench.errors import ProblemError
from rls_bench.problems.grammar import parse


def test_the_variable_makes_a_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["B8 H32/8 Lq1 Lk4096 D128 bf16 padded", "H4 L63 D64"]
    monkeypatch.setenv("RLS_BENCH_PROBLEMS", f" {words[0]} ;\n{words[1]};")
    own = importlib.reload(importlib.import_module("benchmarks.own"))
    suite = own.Own()
    assert suite.params[1] == words
    assert [suite.problem(one, "cpu") for one in words] == [parse(one) for one in words]
    with pytest.raises(ProblemError, match="no word for a problem; the nearest is"):
        suite.problem("H4 L63 D64 casual", "cpu")
    monkeypatch.delenv("RLS_BENCH_PROBLEMS")
    importlib.reload(own)
    assert own.WORDS == []
