import csv

import pytest
from PIL import Image
from typer.testing import CliRunner

from rls_bench.cli.app import app

SMALL = ["sweep", "--length", "32", "--heads", "2", "--seeds", "0,1", "--strengths", "0,0.5,1"]


def run(*arguments: str):
    return CliRunner().invoke(app, [*SMALL, *arguments])


def test_sweep_writes_tables_pictures_and_a_report(tmp_path):
    result = run("--out", str(tmp_path), "--overhead-rounds", "3")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["strength"] for row in rows] == ["0.00", "0.50", "1.00"]
    assert len(list(csv.DictReader((tmp_path / "sweep_seeds.csv").open()))) == 6
    for picture in ("lambda_tradeoff.png", "steerability_plot.png"):
        assert min(Image.open(tmp_path / picture).size) > 400
    report = (tmp_path / "REPORT.md").read_text()
    assert "Measured on the machine above" in report
    assert "entropy reduction yes, KL yes" in report
    # Another experiment than the published one claims nothing about the published table.
    assert "published table" not in report


def test_overhead_that_was_not_measured_says_so(tmp_path):
    result = run("--out", str(tmp_path), "--overhead-rounds", "0")
    assert result.exit_code == 0, result.output
    assert "Not measured: left out by --overhead-rounds 0." in (tmp_path / "REPORT.md").read_text()


def test_sweep_takes_a_backends_statistics(tmp_path):
    result = run("--out", str(tmp_path), "--backend", "eager", "--overhead-rounds", "2")
    assert result.exit_code == 0, result.output
    assert "row statistics of backend `eager`" in (tmp_path / "REPORT.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strengths", "0,x"], "could not convert"),
        (["--normalize", "softmax"], "softmax"),
        (["--backend", "eager", "--eps", "1e-6"], "leave --eps out"),
        (["--overhead-rounds", "1"], "2 and more"),
        (["--head-dim", "64"], "together with backend"),
    ],
)
def test_bad_options_end_with_two_and_say_why(arguments, words, tmp_path):
    result = run("--out", str(tmp_path / "none"), *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "none").exists()
