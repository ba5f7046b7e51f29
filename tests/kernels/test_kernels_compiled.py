"""How many kernels a suite has compiled on a GPU: counted, with none compiled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import triton

from benchmarks import kernels_compiled
from rls_bench.problems.problem import Problem

PLAIN = Problem(1, 2, 1, 48, 48, 64, 64, dtype="float16", inputs="random")


def test_the_published_suite_and_conformance_compile_few_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    before = triton.runtime.driver._active
    assert kernels_compiled.main() == 0
    assert triton.runtime.driver._active is before
    said = capsys.readouterr().out
    # Gradients are among them.
    assert "query_gradient_kernel 1" in said
    assert "key_gradient_kernel 1" in said


def test_what_is_specialised_alike_counts_once_and_anything_else_again() -> None:
    assert kernels_compiled.compiled([PLAIN, replace(PLAIN, query_length=33, strength=2.0)]) == ["prefill_kernel"]
    others = [replace(PLAIN, is_causal=True), replace(PLAIN, dtype="bfloat16"), replace(PLAIN, head_dim=32)]
    assert len(kernels_compiled.compiled([PLAIN, *others])) == 4
    split = kernels_compiled.compiled([replace(PLAIN, query_length=1, key_length=400)])
    assert sorted(split) == ["decode_kernel", "reduce_kernel"]


def test_a_suite_of_too_many_kernels_misses_its_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels_compiled, "asked", lambda: {"published": [PLAIN, replace(PLAIN, is_causal=True)]})
    monkeypatch.setattr(kernels_compiled, "BARS", {"published": 1})
    assert kernels_compiled.main() == 1
    assert "MISSED" in capsys.readouterr().out
