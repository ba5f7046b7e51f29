"""The table of everything: one row a record and question, intervals, × unsteered, names of machines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import CPU, GPU, problem, record, write
from report.results import run

from rls_bench.errors import RecordError
from rls_bench.report import read
from rls_bench.report.sections import sections


def test_rows_have_intervals_and_the_ratio_to_plain_attention(tmp_path: Path) -> None:
    results = read([write(tmp_path / "r.jsonl", run())])
    assert len(results.frame) == 3 * 3 * 5 * 2 + 3
    (_, row), *_ = results.frame.query("backend == 'flex' and question == 'warm' and query_length == 4096").iterrows()
    assert row["low_ns"] < row["latency_ns"] < row["high_ns"]
    assert row["ratio_low"] < row["unsteered_ratio"] < row["ratio_high"]
    assert row["unsteered_ratio"] == pytest.approx(1.3 / 0.8, rel=0.05)
    assert row["launches"] == 3
    assert results.frame.loc[results.frame["backend"] == "unsteered", "unsteered_ratio"].isna().all()


def test_a_later_record_of_the_same_cell_replaces_the_earlier_in_plots(tmp_path: Path) -> None:
    old, new = record("cpu", problem(), [[2e6]] * 3), record("cpu", problem(), [[1e6]] * 3, run="run-2")
    results = read([write(tmp_path / "old.jsonl", [old]), write(tmp_path / "new.jsonl", [new])])
    assert len(results.frame) == 2
    assert results.latest["latency_ns"].tolist() == pytest.approx([1e6])


def test_machines_that_differ_in_versions_alone_are_told_apart(tmp_path: Path) -> None:
    newer = replace(CPU, torch="2.14.0")
    path = write(tmp_path / "r.jsonl", [record("cpu", problem()), record("cpu", problem(), machine=newer)])
    assert list(read([path]).machines) == ["AMD EPYC, 2 threads (torch 2.13.0)", "AMD EPYC, 2 threads (torch 2.14.0)"]


def test_bad_lines_are_kept_with_their_reason_and_no_record_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [record("cpu", problem())])
    path.write_bytes(path.read_bytes() + b"garbage\n")
    assert [bad.line for bad in read([path]).skipped] == [2]
    path.write_text("garbage\n")
    with pytest.raises(RecordError, match="wanted at least one record; got none"):
        read([path])


def test_machines_stand_by_generation(tmp_path: Path) -> None:
    machines = [
        replace(GPU, gpu_name="NVIDIA H200"),
        replace(GPU, gpu_name="NVIDIA A100", gpu_arch="sm_80"),
        GPU,
        CPU,
        replace(GPU, gpu_name="NVIDIA X1", gpu_arch="sm_999"),
    ]
    records = [record("cpu", problem(), [[1e6]] * 3, machine=machine) for machine in machines]
    results = read([write(tmp_path / "r.jsonl", records)])
    parts = {part.name: part for part in sections(results)}
    wanted = ["Ampere", "CPU", "Hopper", "Hopper", "sm_999"]
    for name in ("machines", "across"):
        (table,) = parts[name].tables
        place = table.headings.index("generation")
        assert [row[place] for row in table.rows] == wanted
