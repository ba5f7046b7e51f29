"""The command: its exit codes, its formats, and what it says to a wrong call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import GPU, run, write
from typer.testing import CliRunner, Result

from rls_bench.cli.app import app
from rls_bench.errors import RecordError
from rls_bench.records.record import Record


def call(tmp_path: Path, new: list[Record], *options: str) -> Result:
    base = write(tmp_path / "base.jsonl", run(1))
    return CliRunner().invoke(app, ["compare", str(base), str(write(tmp_path / "new.jsonl", new)), *options])


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (run(2), 0),
        (run(2, slower={3: 1.2}), 1),
        (run(2, slower={3: 0.8}), 0),
        (run(2, between=0.1), 3),
        ([*run(2), replace(run(2)[0], status="crashed", samples_ns={}, reason="signal 11")], 1),
    ],
    ids=["same", "slower", "faster", "ambiguous", "broken"],
)
def test_exit_codes(tmp_path: Path, new: list[Record], code: int) -> None:
    assert call(tmp_path, new).exit_code == code


@pytest.mark.parametrize("threshold", ["3", "0", "-1%", "many", "nan", "100%"])
def test_a_threshold_that_is_no_share_is_a_usage_error(tmp_path: Path, threshold: str) -> None:
    result = call(tmp_path, run(2), "--threshold", threshold)
    assert result.exit_code == 2
    assert "wanted a share such as 3% or 0.03" in result.output


def test_the_threshold_decides(tmp_path: Path) -> None:
    assert call(tmp_path, run(2, slower={3: 1.2}), "--threshold", "50%").exit_code == 0


def test_other_machines_need_the_flag(tmp_path: Path) -> None:
    moved = [replace(entry, machine=GPU) for entry in run(2)]
    assert isinstance(call(tmp_path, moved).exception, RecordError)
    result = call(tmp_path, moved, "--across-machines")
    assert result.exit_code == 0
    assert "Across different machines" in result.output


def test_json_and_markdown_are_all_that_is_printed(tmp_path: Path) -> None:
    assert json.loads(call(tmp_path, run(2), "--format", "json").output)["exit_code"] == 0
    assert call(tmp_path, run(2), "--format", "markdown").output.startswith("## rls-bench compare\n")


def test_github_appends_to_the_jobs_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = call(tmp_path, run(2, slower={3: 1.2}), "--format", "github")
    assert result.output.startswith("::error title=SLOWER%3A backend-3::")
    assert "## rls-bench compare" not in result.output
    assert summary.read_text().startswith("earlier\n## rls-bench compare\n")
