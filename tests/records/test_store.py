"""A store: what goes in comes out as it came, once, and every command reads it as it reads a file."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import drawn_records
import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from rls_bench.cli.app import app
from rls_bench.compare import load
from rls_bench.errors import RecordError
from rls_bench.records import record
from rls_bench.records.record import Record
from rls_bench.records.store import importing, reading

BACKENDS = ("eager", "sdpa-cpu")
PROBLEMS = [drawn_records.problem(length) for length in (256, 512)]


def history(commits: int = 3) -> list[Record]:
    """One run a commit, on two machines in turns, a month apart."""
    rng = np.random.default_rng(21)
    return [
        drawn_records.record(
            backend,
            work,
            drawn_records.launches(rng, 1e6 * work.key_length),
            run=f"run-{number}",
            created=f"2026-{number + 1:02d}-03T00:00:00Z",
            commit=f"{number:040x}",
            machine=(drawn_records.CPU, drawn_records.GPU)[number % 2],
        )
        for number in range(commits)
        for work in PROBLEMS
        for backend in BACKENDS
    ]


def written(path: Path, records: list[Record]) -> Path:
    for entry in records:
        record.append(path, entry)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    importing.take_in(tmp_path / "store", [written(tmp_path / "all.jsonl", history())])
    return tmp_path / "store"


def test_lines_come_back_as_they_went_in(store: Path, tmp_path: Path) -> None:
    went_in = (tmp_path / "all.jsonl").read_bytes().splitlines()
    assert sorted(reading.lines(reading.Place(store, ""))) == sorted(went_in)
    assert record.read_all([store]) != []
    assert {entry.run for entry in record.read_all([store])} == {"run-0", "run-1", "run-2"}


def test_a_folder_for_each_machine_and_month(store: Path) -> None:
    parts = {str(path.parent.relative_to(store)) for path in store.rglob("*.parquet")}
    cpu, gpu = drawn_records.CPU.fingerprint, drawn_records.GPU.fingerprint
    assert parts == {f"machine={cpu}/month=2026-01", f"machine={gpu}/month=2026-02", f"machine={cpu}/month=2026-03"}


def test_what_is_there_already_counts_once(store: Path, tmp_path: Path) -> None:
    more = written(tmp_path / "all.jsonl", history(4)[-2:])
    done = importing.take_in(store, [more, more])
    assert (done.added, done.known) == (2, 2 * 12 + 2)
    assert len(record.read_all([store])) == 14


def test_lines_that_cannot_be_read_are_named_and_the_rest_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path / "all.jsonl", history(1))
    with path.open("ab") as file:
        file.write(b"garbage\n" + msgspec.json.encode(replace(history(1)[0], schema=99)) + b"\n")
    done = importing.take_in(tmp_path / "store", [path])
    assert done.added == 4
    assert [bad.line for bad in done.skipped] == [5, 6]
    assert "schema 99" in done.skipped[1].reason


def test_an_import_that_fails_leaves_the_store_as_it_was(store: Path, tmp_path: Path) -> None:
    good = written(tmp_path / "more.jsonl", history(5)[-2:])
    with pytest.raises(RecordError, match=r"missing\.jsonl: cannot be read"):
        importing.take_in(store, [good, tmp_path / "missing.jsonl"])
    assert len(record.read_all([store])) == 12
    assert not [*store.rglob("*.part")]


def test_compare_sees_the_newest_commit_as_in_a_file(store: Path, tmp_path: Path) -> None:
    from_file, from_store = load(tmp_path / "all.jsonl"), load(store)
    assert from_store.cells == {
        key: cell._replace(standing=replace(cell.standing, older=())) for key, cell in from_file.cells.items()
    }
    assert from_store.older == from_file.older == (f"{0:040x}",)


def test_a_part_of_a_store_is_a_source(store: Path) -> None:
    part = Path(f"{store}::run = 'run-1'")
    assert {entry.run for entry in record.read_all([part])} == {"run-1"}
    with pytest.raises(RecordError, match="nothing"):
        record.read_all([Path(f"{store}::nothing = 1")])
    with pytest.raises(RecordError, match="wanted a folder that rls-bench store import made"):
        record.read_all([Path(f"{store}-none::run = 'a'")])


def test_every_command_takes_a_store(store: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    base = f"{store}::run = 'run-0'"
    compared = run(app, ["compare", base, f"{store}::run = 'run-2'"])
    assert compared.exit_code in (0, 1, 3), compared.output
    assert "eager" in compared.output
    assert run(app, ["choose", f"{store}::run = 'run-2'"]).exit_code == 0
    reported = run(app, ["report", str(store), "--format", "csv"])
    assert reported.exit_code == 0
    assert "run-2" in reported.output


def test_it_is_asked_in_sql(store: Path) -> None:
    run = CliRunner().invoke
    asked = "select backend, count(*) as n, min(warm_ns) > 0 as timed from records group by backend order by backend"
    assert run(app, ["store", "query", asked, "--store", str(store), "--format", "csv"]).output.splitlines() == [
        "backend,n,timed",
        "eager,6,True",
        "sdpa-cpu,6,True",
    ]
    found = reading.query(store, "select median(warm_ns) / 1e6 as ms from records where key_length = 512")
    assert found.rows[0][0] == pytest.approx(512, rel=0.02)
    with pytest.raises(RecordError, match="no_such_column"):
        reading.query(store, "select no_such_column from records")


def test_it_is_given_back(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "back.jsonl"
    words = ["store", "export", "--store", str(store), "--out", str(out), "--where", "backend = 'eager'"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert {entry.backend for entry in record.read(out)} == {"eager"}
    assert len([*record.read(out)]) == 6


MEASURED = """
import sys, time
from pathlib import Path
from rls_bench.compare import load
from rls_bench.records.store import importing
began = time.process_time()
done = importing.take_in(Path(sys.argv[2]), [Path(sys.argv[1])])
taken, began = time.process_time() - began, time.process_time()
found = load(Path(sys.argv[2]))
# Of this program alone: what getrusage tells begins with the memory of whoever started it.
(peak,) = (int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(done.added, len(found.cells), peak, f"import {taken:.1f} s, load {time.process_time() - began:.2f} s of CPU time")
"""


@pytest.mark.slow
def test_a_hundred_thousand_records_in_little_memory(tmp_path: Path) -> None:
    path, runs = tmp_path / "all.jsonl", 25_000
    block = b"".join(msgspec.json.encode(entry) + b"\n" for entry in history(1))
    with path.open("wb") as file:
        for number in range(runs):
            file.write(block.replace(b'"run-0"', b'"run-%d"' % number).replace(b"0" * 40, b"%040x" % number))
    # In a process of its own: what other tests have taken is not the store's.
    done = subprocess.run([sys.executable, "-c", MEASURED, str(path), str(tmp_path / "store")], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    added, cells, peak_bytes, words = done.stdout.decode().split(maxsplit=3)
    print(f"{int(peak_bytes) / 1e6:.0f} MB, {words}")
    assert (int(added), int(cells)) == (4 * runs, 4)
    assert int(peak_bytes) < 1e9
