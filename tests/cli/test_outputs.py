"""Places to write to are tried at the door, and names on the command line are checked there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from drawn_records import run, write
from typer.testing import CliRunner

from rls_bench.cli import outputs
from rls_bench.cli.app import app


@pytest.mark.parametrize("out", ["", ".", "folder", "/dev/null", "fifo", "file/below"])
def test_no_file_to_write_to_is_refused(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(typer.BadParameter, match="--out"):
        outputs.check_file(Path(out), "--out")
    result = CliRunner().invoke(app, ["run", "--suite", "smoke", "--out", out])
    assert result.exit_code == 2
    assert "--out" in result.output
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "folder"]


def test_a_file_that_is_there_and_one_to_be_made_are_fine(tmp_path: Path) -> None:
    outputs.check_file(tmp_path / "new" / "r.jsonl", "--out")
    (tmp_path / "r.jsonl").write_text("")
    outputs.check_file(tmp_path / "r.jsonl", "--out")
    outputs.check_file(None, "--out")
    outputs.check_folder(None, "--out")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "--length", "16", "--heads", "1", "--out", "{file}"],
        ["evaluate", "digits", "--items", "2", "--out", "{file}"],
        ["inspect", "--arch", "sm_90", "--chart", "{file}/x.png"],
        ["report", "{results}", "--html", "{file}/x.html"],
        ["report", "{results}", "--format", "png", "--out", "{file}"],
        ["choose", "{results}", "--policy", "{file}/p.json"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_output_is_tried_before_the_work(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    names = {"file": file, "results": write(tmp_path / "r.jsonl", run(1))}
    result = CliRunner().invoke(app, [word.format(**names) for word in arguments])
    assert result.exit_code == 2
    assert "cannot be made" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--backend", "eager", "--backend", "eager"], "--backend: wanted each name once"),
        (["--probe", "telescope"], "--probe: wanted one of"),
        (["--problem", "query_heads=4,query_length=8,head_dim=0"], "problem"),
        (["--problem", "query_heads=4,kv_heads=3,query_length=8,head_dim=8"], "problem"),
    ],
)
def test_names_and_sizes_are_checked_at_the_door(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", *arguments, "--out", str(tmp_path / "r.jsonl")])
    assert result.exit_code == 2
    assert told in result.output
    assert not list(tmp_path.iterdir())
