"""Records: what is written can be read back, and bad lines never lose good ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import record

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


APPEND = """
import resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
import subprocess
import sys
from dataclasses import replace
from rls_bench.records import record
first = next(record.read(Path({out!r})))
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
for number in range({count}):
    record.append(Path({out!r}), replace(first, run={run!r}, reason="x" * (number * 97 % 5000)))
"""


def appender(out: Path, run: str, count: int, limit: int = 0) -> subprocess.Popen[bytes]:
    """A process that appends ``count`` records, and may write no further than ``limit`` bytes into a file."""
    code = APPEND.format(path=[entry for entry in sys.path if entry], out=str(out), run=run, count=count, limit=limit)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def test_two_runs_that_append_at_once_tear_no_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, RECORD)
    runs = [appender(path, run, 200) for run in ("one", "two")]
    for process in runs:
        process.communicate()

    skipped: list[record.Skipped] = []
    names = [entry.run for entry in record.read(path, skipped)]

    assert not skipped
    assert names.count("one") == names.count("two") == 200


def test_a_disk_that_fills_up_is_a_clear_error_and_costs_no_earlier_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, RECORD)
    _, errors = appender(path, "long", 50, limit=20_000).communicate()

    skipped: list[record.Skipped] = []
    records = list(record.read(path, skipped))

    assert b"earlier lines are intact" in errors
    assert not skipped
    assert 1 < len(records) < 51
    assert path.read_bytes().endswith(b"\n")


def test_a_line_that_a_killed_writer_left_torn_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, RECORD)
    path.write_bytes(path.read_bytes()[:-20])
    record.append(path, RECORD)
    skipped: list[record.Skipped] = []
    assert list(record.read(path, skipped)) == [RECORD]
    assert [bad.line for bad in skipped] == [1]
