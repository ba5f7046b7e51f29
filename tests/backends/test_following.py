"""Calls that are prepared once see what changes in place afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from following import WORDS, follows

from rls_bench.backends import registry
from rls_bench.backends.eager import Eager
from rls_bench.backends.interface import Call
from rls_bench.problems.inputs import Inputs


@pytest.mark.parametrize("name", ["cpu", "eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "unsteered"])
def test_new_values_in_the_same_tensors_are_seen(name: str) -> None:
    assert [reason for words in WORDS if (reason := follows(name, words))] == []


def test_a_copy_made_as_it_was_prepared_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Copies(Eager):
        def prepare(self, inputs: Inputs) -> Call:
            return super().prepare(replace(inputs, bias=inputs.bias.clone()))

    monkeypatch.setitem(registry.LOADED, "copies", Copies())
    monkeypatch.setattr(registry, "get", lambda name: registry.LOADED[name])
    assert "error is" in follows("copies", WORDS[0])
