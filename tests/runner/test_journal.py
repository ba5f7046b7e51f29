"""What survives a death: the journal, resuming, and two runs beside one file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rls_bench.errors import RecordError
from rls_bench.problems.problem import Problem
from rls_bench.runner import journal
from rls_bench.runner.plan import Plan

PLAN = Plan([Problem(1, 2, 2, 16, 24, 16, 16)], ["eager"])
STARTED = journal.Started("run1", "2026-01-01T00:00:00Z", PLAN, None, False)
TOOK = journal.Took("eager", 0, 1, "warm", [1.0, 2.0], [3.0])


def written(out: Path, run: str = "run1") -> Path:
    log = journal.Journal(journal.beside(out, run))
    log.write(STARTED)
    log.write(TOOK)
    log.close(remove=False)
    return log.path


def test_a_journal_reads_back(tmp_path: Path) -> None:
    assert journal.read(written(tmp_path / "r.jsonl")) == (STARTED, [TOOK])


def test_a_torn_last_line_is_the_sample_in_flight(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert journal.read(path) == (STARTED, [])


def test_a_resumed_journal_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    log = journal.Journal(path)
    log.write(TOOK)
    log.close(remove=False)
    assert journal.read(path) == (STARTED, [TOOK])


def test_only_a_journal_that_nobody_holds_is_abandoned(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    assert journal.abandoned(out) is None
    live = journal.Journal(journal.beside(out, "run2"))
    live.write(STARTED)
    assert journal.abandoned(out) is None
    dead = written(out)
    assert journal.abandoned(out) == dead
    live.close(remove=True)
    assert list(tmp_path.iterdir()) == [dead]


def test_a_journal_that_died_before_its_first_line_is_no_run(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    journal.beside(out, "run1").write_bytes(b'{"type":"Sta')
    assert journal.abandoned(out) is None


def test_a_foreign_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.x.part"
    path.write_bytes(b"garbage\n")
    with pytest.raises(RecordError, match=r"r\.jsonl\.x\.part"):
        journal.read(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    log = journal.Journal(tmp_path / "r.jsonl.x.part")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    with pytest.raises(RecordError, match="No space left on device"):
        log.write(TOOK)
