"""What the kernels that a launch may compile on sm_90 spill, under the oldest Triton supported and under this one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import triton

from benchmarks import spills
from rls_bench.inspector.inspection import Case

# With this set all kernels are compiled, and not the most burdened alone.
WHOLE = "RLS_BENCH_WHOLE"


def test_each_kernel_is_compiled_once_and_the_sample_has_each_kind_dtype_and_head_dim() -> None:
    found = spills.launchable()
    titles = [case.variant.title for case in found]
    assert len({repr(case.source) for case in found}) == len(set(titles)) == len(titles) > 500
    sample = spills.burdened(found)
    assert len(sample) < 80

    def kinds(cases: list[Case]) -> set[tuple[str, str, str, int]]:
        return {
            (case.variant.kernel, case.source.function, case.variant.dtype, case.variant.head_dim) for case in cases
        }

    assert kinds(sample) == kinds(found)
    assert "decode D64 bf16 causal eps stats λ[scalar] rows[64] b[hk] lengths" in [
        each.variant.title for each in sample
    ]


def test_a_bar_is_missed_by_what_spills_more_than_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, listed = "prefill D64 fp32 λ[scalar]", "backward-key D64 bf16 λ[scalar]"
    monkeypatch.setattr(spills, "LISTED", {listed: 16})
    assert list(spills.missed(spills.NEWEST, {plain: 0, listed: 16})) == []
    assert list(spills.missed(spills.NEWEST, {plain: 4, listed: 20})) == [
        f"triton 3.7.1: {plain}: 4 B (wanted at most 0)",
        f"triton 3.7.1: {listed}: 20 B (wanted at most 16)",
    ]
    assert list(spills.missed(spills.OLDEST, {plain: 64, listed: 64})) == []
    assert len(list(spills.missed(spills.OLDEST, {plain: 65, listed: 65}))) == 2


def test_what_is_listed_is_launched_and_is_no_float32_prefill_or_decode() -> None:
    titles = {case.variant.title for case in spills.launchable()}
    assert set(spills.LISTED) <= titles
    assert not [title for title in spills.LISTED if title.split()[0] in ("prefill", "decode") and "fp32" in title]


@pytest.mark.slow
def test_a_kernel_that_is_given_too_few_registers_misses_both_bars() -> None:
    (case, *_) = spills.launchable(["prefill", "D128", "bf16", "eps", "stats"])
    starved = replace(case, source=replace(case.source, options={"maxnreg": 128}))
    found = spills.spilt([starved])
    for version in (spills.NEWEST, spills.OLDEST):
        assert len(list(spills.missed(version, found))) == 1


def chosen(*words: str) -> list[Case]:
    found = spills.launchable(words)
    return found if os.environ.get(WHOLE) else spills.burdened(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_that_a_launch_may_compile_spills_much_under_the_oldest_triton() -> None:
    """Of each kernel, function, dtype and head dim the most burdened; with RLS_BENCH_WHOLE=1 all 578."""
    found = spills.compiled(spills.OLDEST, chosen())
    assert list(spills.missed(spills.OLDEST, found)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(triton.__version__ != spills.NEWEST, reason=f"the list is triton {spills.NEWEST}'s")
@pytest.mark.parametrize("kernel", ["prefill", "decode"])
def test_float32_prefill_and_decode_spill_nothing(kernel: str) -> None:
    """Of each function and head dim the most burdened; with RLS_BENCH_WHOLE=1 all."""
    found = spills.compiled(spills.NEWEST, chosen("fp32", kernel))
    assert list(spills.missed(spills.NEWEST, found)) == []
