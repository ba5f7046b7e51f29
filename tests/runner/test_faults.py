"""Every fault at once, beside healthy backends, in one run: each is named right and harms nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Record
from rls_bench.records.statistics import ratio_interval
from rls_bench.runner import Plan, run

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
    "LACKING": ("unavailable", "could not compile"),
    "CROWDED": ("unavailable", "no room to write"),
    "MISSING": ("unavailable", "cannot be imported"),
    "UNMEASURABLE": ("ok", "interpreter"),
    "HEALTHY": ("ok", ""),
    "QUICK": ("ok", ""),
}


def run_all(folder: Path) -> dict[str, Record]:
    """Every fault and the healthy backends in one run, by name."""
    names = [f"fakes:{name}" for name in EXPECTED]
    plan = Plan([PROBLEM], names, budget_seconds=60, timeout_seconds=30, compile_timeout_seconds=30, race=False)
    return {record.label.removeprefix("fakes:"): record for record in run(plan, folder / "results.jsonl").records}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_fault_ends_its_own_cell_and_nothing_else(tmp_path: Path) -> None:
    found = run_all(tmp_path)
    for name, (status, reason) in EXPECTED.items():
        assert found[name].status == status, f"{name}: {found[name].reason}"
        assert reason in found[name].reason, name
        assert bool(found[name].samples_ns) == (status == "ok" and name != "UNMEASURABLE"), name


@pytest.mark.quiet
@pytest.mark.timeout(900)
def test_healthy_backends_are_as_fast_as_alone(tmp_path: Path) -> None:
    found = run_all(tmp_path)
    alone = run(Plan([PROBLEM], ["fakes:HEALTHY", "fakes:QUICK"], budget_seconds=20), tmp_path / "alone.jsonl")
    for name in ("HEALTHY", "QUICK"):
        (record,) = (record for record in alone.records if record.label == f"fakes:{name}")
        ratio = ratio_interval(record.samples_ns["warm"], found[name].samples_ns["warm"], 0.99)
        print(f"{name}: {ratio.median:.3f} × alone, 99 % interval {ratio.low:.3f} to {ratio.high:.3f}")
        assert ratio.low <= 1 <= ratio.high
