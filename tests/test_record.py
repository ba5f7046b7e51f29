"""Records: what is written can be read back, and bad lines never lose good ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rls_bench import record
from rls_bench.machine import Machine
from rls_bench.problem import Problem

MACHINE = Machine("cpu", ("avx2",), 2, 2, 1 << 30, "Linux", "3.11", "2.13.0")
PROBLEM = Problem(1, 4, 2, 7, 9, 16, 16)
AGREED = record.Agreement(error=1e-7, floor=1e-7, ratio=1.0, passed=True)
RECORD = record.Record(
    run="r",
    created="2026-01-01T00:00:00Z",
    machine=MACHINE,
    problem=PROBLEM,
    backend="eager",
    label="eager",
    status="ok",
    agreement=AGREED,
    samples_ns={"warm": [[1.0, 2.0], [3.0]]},
)


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "results.jsonl"
    record.append(path, RECORD)
    assert list(record.read(path)) == [RECORD]


def test_bad_lines_are_named_and_the_rest_loads(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, RECORD)
    with path.open("ab") as file:
        file.write(b"garbage\n" + b"\xff\xfe\n" + b'{"schema": 99, "new": 1}\n')
    record.append(path, replace(RECORD, label="eager#2"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])

    skipped: list[record.Skipped] = []
    labels = [entry.label for entry in record.read(path, skipped)]

    assert labels == ["eager", "eager#2"]
    assert [bad.line for bad in skipped] == [2, 3, 4, 6]
    assert "schema 99" in skipped[2].reason


def test_speed_needs_agreement() -> None:
    with pytest.raises(ValueError, match="carries no latency"):
        replace(RECORD, status="wrong")
    with pytest.raises(ValueError, match="agreement that passed"):
        replace(RECORD, agreement=None)
