"""The command: what was asked, in tables, a picture, JSON and a file that run takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rls_bench import record_workload
from rls_bench.cli.app import app
from rls_bench.errors import RecordError
from rls_bench.problems import workload as workloads
from rls_bench.problems.grammar import parse
from rls_bench.traffic import counting


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["workload", *words], env={"COLUMNS": "200"})


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    with record_workload(path):
        counting.count_requests(4)
        for length in range(100, 140):
            counting.count(parse(f"H9/3 Lq1 Lk{length} D64"))
        for _ in range(4):
            counting.count(parse("H9/3 L100 D64 causal"))
    return path


@pytest.mark.slow
def test_it_is_drawn(trace: Path, tmp_path: Path) -> None:
    assert call(str(trace), "--chart", str(tmp_path / "w.png")).exit_code == 0
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")


def test_a_trace_becomes_tables_and_a_workload(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.toml"
    result = call(str(trace), "--out", str(out), "--most", "6")
    assert result.exit_code == 0, result.output
    assert "44 calls of 41 problems, 4 requests" in result.output
    assert "decode B1 H9/3 Lq1 D64 fp32" in result.output
    assert "median 119, 40 lengths" in result.output
    assert "6 problems stand for all" in result.output
    assert f"rls-bench run --workload {out}" in result.output
    found = workloads.read(out)
    assert found.unit == "requests"
    assert len(found.problems) == 6
    # 44 calls of 4 requests, for every 1,000.
    assert sum(one.weight for one in found.problems) == pytest.approx(11_000, rel=0.01)
    # And what was written can be shown again.
    assert call(str(out)).exit_code == 0


def test_requests_may_be_told(trace: Path) -> None:
    found = json.loads(call(str(trace), "--requests", "44", "--json").output)
    assert found["unit"] == "requests"
    assert sum(one["per_1000"] for one in found["problems"]) == pytest.approx(1000)
    members = [title for one in found["representatives"] for title in one["stands_for"]]
    assert len(members) == 41


def test_calls_without_requests_are_counted_by_the_thousand(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with record_workload(path):
        counting.count(parse("H9/3 L100 D64"))
    assert json.loads(call(str(path), "--json").output)["unit"] == "calls"


def test_wrong_calls(trace: Path, tmp_path: Path) -> None:
    assert "wanted a name that ends in .png, .svg or .pdf" in call(str(trace), "--chart", "w.txt").output
    with record_workload(tmp_path / "empty.jsonl"):
        pass
    assert "nothing was asked while it was recorded" in call(str(tmp_path / "empty.jsonl")).output
    (tmp_path / "other.jsonl").write_text("{}\n", encoding="utf-8")
    assert isinstance(call(str(tmp_path / "other.jsonl")).exception, RecordError)
