"""The command: the page, the other forms, and wrong calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_records import problem, record, write
from typer.testing import CliRunner, Result

from rls_bench.cli.app import app


def call(tmp_path: Path, *options: str) -> Result:
    path = write(tmp_path / "r.jsonl", [record("cpu", problem(), [[1e6], [1.01e6], [0.99e6]])])
    path.write_bytes(path.read_bytes() + b"garbage\n")
    return CliRunner().invoke(app, ["report", str(path), *options])


def test_the_page_is_written_and_bad_lines_are_named(tmp_path: Path) -> None:
    out = tmp_path / "sub" / "report.html"
    result = call(tmp_path, "--html", str(out))
    assert result.exit_code == 0
    assert out.read_text().startswith("<!doctype html>")
    assert "left out" in result.stderr


def test_text_forms_print_where_no_file_is_given(tmp_path: Path) -> None:
    assert call(tmp_path, "--format", "markdown").stdout.startswith("# rls_bench report")
    assert call(tmp_path, "--format", "csv").stdout.startswith("machine,backend,label,")
    out = tmp_path / "r.md"
    assert call(tmp_path, "--format", "markdown", "--out", str(out)).stdout == ""
    assert out.read_text().startswith("# rls_bench report")


@pytest.mark.parametrize("options", ["", "--format png", "--format parquet", "--format jpeg"])
def test_wrong_calls(tmp_path: Path, options: str) -> None:
    assert call(tmp_path, *options.split()).exit_code == 2


def test_a_place_that_cannot_be_written_is_refused_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call(tmp_path, "--html", str(tmp_path / "file" / "report.html"))
    assert result.exit_code == 2
    assert "--html" in result.output
