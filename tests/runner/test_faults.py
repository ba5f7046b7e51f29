"""Every fault at once, beside healthy backends, in one run: each is named right and harms nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rls_bench.problem import Problem
from rls_bench.runner import Plan, run
from rls_bench.statistics import ratio_interval

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")
EXPECTED = {
    "CRASH": ("crashed", "SIGSEGV"),
    "LATE_CRASH": ("crashed", "SIGSEGV"),
    "KILLED": ("out_of_memory", "SIGKILL"),
    "HANG": ("timeout", "no answer"),
    "EXIT": ("failed", "sys.exit(3)"),
    "HARD_EXIT": ("crashed", "code 3"),
    "OUT_OF_MEMORY": ("out_of_memory", ""),
    "RAISES": ("failed", "no kernel image"),
    "WRONG": ("wrong", "the floor"),
    "NOT_A_NUMBER": ("wrong", "not finite"),
    "UNWRITTEN": ("wrong", "never written"),
    "MUTATING": ("wrong", "changed its input"),
    "NOISY": ("ok", "standard output"),
    "FORKING": ("failed", "child process"),
    "LINGERING": ("failed", "child process"),
    "CACHING": ("wrong", "kept from before"),
    "THREADING": ("wrong", "thread"),
    "OVERWRITING": ("wrong", "share memory"),
    "PATCHING": ("failed", "perf_counter_ns"),
    "IMPOSTOR": ("wrong backend", "cutlass"),
    "CHEATING": ("wrong", "timed call"),
    "UNAVAILABLE": ("unavailable", "quantum"),
    "UNSUPPORTED": ("unsupported", "prime"),
    "MISSING": ("unavailable", "cannot be imported"),
    "UNMEASURABLE": ("ok", "interpreter"),
    "HEALTHY": ("ok", ""),
    "QUICK": ("ok", ""),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_fault_ends_its_own_cell_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    plan = Plan([PROBLEM], [f"fakes:{name}" for name in EXPECTED], budget_seconds=60, timeout_seconds=30, race=False)
    found = {record.label.removeprefix("fakes:"): record for record in run(plan, out).records}

    for name, (status, reason) in EXPECTED.items():
        assert found[name].status == status, f"{name}: {found[name].reason}"
        assert reason in found[name].reason, name
        assert bool(found[name].samples_ns) == (status == "ok" and name != "UNMEASURABLE"), name

    alone = run(Plan([PROBLEM], ["fakes:HEALTHY", "fakes:QUICK"], budget_seconds=20), tmp_path / "alone.jsonl")
    for record in alone.records:
        name = record.label.removeprefix("fakes:")
        if name in EXPECTED:
            ratio = ratio_interval(record.samples_ns["warm"], found[name].samples_ns["warm"], 0.99)
            print(f"{name}: {ratio.median:.3f} × alone, 99 % interval {ratio.low:.3f} to {ratio.high:.3f}")
            assert ratio.low <= 1 <= ratio.high
