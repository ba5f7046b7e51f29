"""The other forms hold the same figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from drawn_records import write
from PIL import Image
from report.results import HOSTILE, run

from rls_bench.report import Results, markdown, read, write_csv, write_parquet, write_pngs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read([write(tmp_path_factory.mktemp("report") / "r.jsonl", run())])


def test_csv_and_parquet_hold_every_row(results: Results, tmp_path: Path) -> None:
    write_csv(results, tmp_path / "r.csv")
    write_parquet(results, tmp_path / "r.parquet")
    for loaded in (pd.read_csv(tmp_path / "r.csv"), pd.read_parquet(tmp_path / "r.parquet")):
        assert list(loaded.columns) == list(results.frame.columns)
        assert loaded["latency_ns"].tolist() == pytest.approx(results.frame["latency_ns"].tolist(), nan_ok=True)
        assert set(loaded["backend"]) == set(results.frame["backend"])


def test_one_png_for_each_plot(results: Results, tmp_path: Path) -> None:
    written = write_pngs(results, tmp_path / "plots")
    assert [path.name for path in written] == [
        "latency.png",
        "steering-cost.png",
        "error.png",
        "pareto.png",
    ]
    with Image.open(written[0]) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 50


def test_markdown_is_the_same_report(results: Results) -> None:
    page = markdown(results)
    assert page.startswith("# rls_bench report\n\n## Verdict\n")
    assert "| unavailable | needs CUDA |" in page
    assert "<script>" not in page
    assert HOSTILE not in page
    assert "more rows: `--format csv`" in page
