"""The last stage where nothing draws, as from a bundle: tables without pictures, and a word of why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drawn_records import problem, record, write

from rls_bench.survey import concluding
from rls_bench.survey.conductor import NOTE
from rls_bench.survey.work import Task


@pytest.fixture
def nothing_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes to come cannot import matplotlib."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError(\"No module named 'matplotlib'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.usefixtures("nothing_draws")
def test_without_matplotlib_the_report_has_tables_and_says_what_pictures_want(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    records = [
        record(name, problem(), [[ns], [1.01 * ns], [0.99 * ns]]) for name, ns in {"cpu": 1e6, "flex": 2e6}.items()
    ]
    write(out / "bench.records.jsonl", records)
    assert concluding.conclude(Task(out, "cpu", time.monotonic() + 600)) == ""
    why = "no pictures, which want seaborn and matplotlib: No module named 'matplotlib'"
    assert capsys.readouterr().out.splitlines()[-1] == f"{NOTE}report.html: {why}"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "This page has no pictures, which want seaborn and matplotlib" in page
    assert "<img" not in page
    # The tables that lie behind pictures elsewhere are open here.
    assert "<details open>" in page
    assert "<details>" not in page
    assert (out / "policy.json").exists()
    assert (out / "baseline.amd-epyc.jsonl").exists()
