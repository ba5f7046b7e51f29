"""A run end to end, with real worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rls_bench import record
from rls_bench.errors import UnknownBackend
from rls_bench.problem import Problem
from rls_bench.runner import Plan, run

PROBLEM = Problem(1, 2, 2, 16, 24, 16, 16, inputs="random", name="tiny")


def test_a_run_measures_each_cell_in_each_launch_and_its_twin(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    summary = run(Plan([PROBLEM], ["fakes:HEALTHY"], launches=2, budget_seconds=5, questions=("warm",)), out)

    records = list(record.read(out))
    assert records == summary.records
    assert [entry.label for entry in records] == ["fakes:HEALTHY", "fakes:HEALTHY#2"]
    for entry in records:
        assert entry.status == "ok", entry.reason
        assert len(entry.samples_ns["warm"]) >= 2
        assert all(len(launch) >= 3 for launch in entry.samples_ns["warm"])
        assert entry.noise_floor == summary.noise_floor is not None
    assert not list(tmp_path.glob("*.part"))


def test_an_unknown_backend_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownBackend, match="nonesuch"):
        run(Plan([PROBLEM], ["nonesuch"]), tmp_path / "results.jsonl")
    assert not list(tmp_path.iterdir())
