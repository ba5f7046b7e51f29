"""What asv's suites measure once for several figures, or for several commits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import grid
from benchmarks.decode import Decode
from benchmarks.options import ExactEps, Statistics, StrengthPerHead
from benchmarks.prefill import Prefill
from rls_bench import runner

GRIDS = (Prefill, Decode, ExactEps, Statistics, StrengthPerHead)


def told(backend: str, problem: Any) -> SimpleNamespace:
    """A record of a stand-in for the runner: eager alone is measured, the longer problem takes the longer."""
    status = "ok" if backend == "eager" else "unsupported"
    return SimpleNamespace(
        backend=backend, problem=problem, status=status, reason="no", samples_ns={"warm": [[problem.key_length]]}
    )


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[runner.Plan]:
    """The plans that were run, by the stand-in."""
    taken: list[runner.Plan] = []

    def run(plan: runner.Plan, path: Path) -> Any:
        taken.append(plan)
        return SimpleNamespace(records=[told(name, problem) for problem in plan.problems for name in plan.backends])

    monkeypatch.setattr(runner, "run", run)
    return taken


def test_one_run_measures_every_cell(plans: list[runner.Plan]) -> None:
    found = Decode().setup_cache()
    (plan,) = plans
    assert len(plan.problems) == sum(len(suite.params[1]) for suite in GRIDS) == 7
    assert plan.budget_seconds == sum(suite.budget_seconds for suite in GRIDS)
    cells = {
        (suite.__name__, backend, length)
        for suite in GRIDS
        for backend in suite.params[0]
        for length in suite.params[1]
    }
    assert found.keys() == cells
    for suite in GRIDS:
        for length in suite.params[1]:
            record = suite().record(found, "eager", length)
            assert record.problem == suite().problem(length, record.problem.device)
    Decode().setup(found, "eager", 4096)
    assert Decode().track_latency(found, "eager", 4096)["samples"] == [4096e-9]
    with pytest.raises(NotImplementedError, match="no"):
        Decode().setup(found, "cpu", 4096)


def test_all_grids_share_the_line_by_which_asv_tells_caches_apart() -> None:
    from asv_runner.benchmarks._base import get_setup_cache_key

    assert len({get_setup_cache_key(suite().setup_cache) for suite in GRIDS}) == 1


def test_a_suite_that_is_left_out_is_skipped(plans: list[runner.Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "SUITES", ["prefill"])
    found = Prefill().setup_cache()
    assert {name for name, _, _ in found} == {"Prefill"}
    with pytest.raises(NotImplementedError, match="left out by RLS_BENCH_SUITES=prefill"):
        ExactEps().setup(found, "eager", 1024)


def test_compiling_is_timed_once_for_the_same_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rls_kernels.cpu import build

    from benchmarks import cpu_bars

    compiled: list[float] = []

    def compile_bar() -> cpu_bars.Figure:
        compiled.append(12.5 + len(compiled))
        return cpu_bars.Figure("first-use compile, seconds", compiled[-1], at_most=20.0)

    monkeypatch.setattr(cpu_bars, "compile_bar", compile_bar)
    for sources, found in (("one", 12.5), ("one", 12.5), ("two", 13.5)):
        (tmp_path / sources).mkdir(exist_ok=True)
        monkeypatch.setattr(build, "build", lambda sources=sources: tmp_path / sources / "library.so")
        assert cpu_bars.kept_compile_bar() == cpu_bars.Figure("first-use compile, seconds", found, at_most=20.0)
    assert len(compiled) == 2
