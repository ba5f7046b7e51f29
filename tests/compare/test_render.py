"""Each format says the same, and none lets a name or a reason break out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

from drawn_records import problem, record, run, write
from rich.console import Console

from rls_bench.compare import Comparison, compare, load, render

HOSTILE = "a|b <script>alert(1)</script>\n::error::forged, 100% *bold*"


def comparison(tmp_path: Path, slower: int = 1, cells: int = 12) -> Comparison:
    base = write(tmp_path / "base.jsonl", [*run(1, cells=cells), record(HOSTILE, problem())])
    new = run(2, cells=cells, slower=dict.fromkeys(range(slower), 1.5))
    broken = record(HOSTILE, problem(), status="wrong", reason=HOSTILE)
    return compare(load(base), load(write(tmp_path / "new.jsonl", [*new, broken])))


def test_text_leads_with_the_worst_and_ends_with_the_verdict(tmp_path: Path) -> None:
    console = Console(width=200, file=StringIO(), record=True)
    console.print(render.text(comparison(tmp_path)))
    lines = console.export_text().splitlines()
    verdicts = [line.split()[0] for line in lines if line.startswith(("BROKEN", "SLOWER", "SAME"))]
    assert verdicts[:3] == ["BROKEN", "SLOWER", "SAME"]
    assert lines[-1] == "1 broken, 1 slower, 11 same (threshold 3 %)"


def test_json_holds_every_row_and_the_exit_code(tmp_path: Path) -> None:
    judged = comparison(tmp_path)
    loaded = json.loads(render.as_json(judged))
    assert loaded["exit_code"] == judged.exit_code == 1
    assert loaded["counts"] == {"BROKEN": 1, "SLOWER": 1, "SAME": 11}
    assert len(loaded["rows"]) == 13
    slower = next(row for row in loaded["rows"] if row["verdict"] == "SLOWER")
    assert slower["low"] < slower["ratio"] < slower["high"]
    assert loaded["base"]["commits"] == ["a" * 40]


def test_markdown_escapes_what_it_shows(tmp_path: Path) -> None:
    page = render.markdown(comparison(tmp_path))
    row = next(line for line in page.splitlines() if "BROKEN" in line)
    assert "<script>" not in page
    assert row.count("|") - row.count("\\|") == 10
    assert "&lt;script&gt;" in row


def test_annotations_escape_and_stay_within_githubs_limit(tmp_path: Path) -> None:
    lines = render.annotations(comparison(tmp_path)).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::notice"]
    assert "%0A::error::forged, 100%25" in lines[0]
    crowded = render.annotations(comparison(tmp_path, slower=30, cells=40)).splitlines()
    assert sum(line.startswith("::error") for line in crowded) == 10
    assert "and 22 more" in crowded[-2]


def test_a_long_table_says_what_it_leaves_out(tmp_path: Path) -> None:
    page = render.markdown(comparison(tmp_path, cells=300))
    assert "and 101 more rows" in page


def test_across_machines_is_in_the_heading(tmp_path: Path) -> None:
    path = write(tmp_path / "base.jsonl", run(1))
    side = load(path, across_machines=True)
    assert "Across different machines" in render.markdown(compare(side, side, across_machines=True))


def test_cycles_have_a_column_where_they_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "base.jsonl", run(1))
    side = load(path, across_machines=True)
    plain = compare(side, side, across_machines=True)
    assert "Clock cycles are not known" in render.markdown(plain)
    assert "cycles, new / base" not in render.markdown(plain)
    known = replace(plain, rows=[row._replace(cycles_ratio=0.6667) for row in plain.rows])
    assert "cycles, new / base" in render.markdown(known)
    assert "| 0.667 |" in render.markdown(known)
