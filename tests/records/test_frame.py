"""Results as a frame: every record a row, bad lines skipped and named, fast and small at a million rows."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rls_bench.machines.machine import Machine
from rls_bench.problems.problem import Problem
from rls_bench.records import frame, record

MACHINE = Machine("cpu", ("avx2",), 2, 2, 1 << 30, "Linux", "3.11", "2.13.0")
PROBLEM = Problem(1, 4, 2, 7, 9, 16, 16, name="tiny")
OK = record.Record(
    run="r",
    created="2026-01-01T00:00:00Z",
    machine=MACHINE,
    problem=PROBLEM,
    backend="eager",
    label="eager",
    status="ok",
    agreement=record.Agreement(error=1e-7, floor=1e-7, ratio=1.0, passed=True),
    samples_ns={"warm": [[1.0, 4.0, 9.0], [16.0]]},
    warmup_ns=[[2.0], [3.0]],
    noise_floor=0.01,
)
CRASHED = replace(OK, backend="flex", label="flex", status="crashed", agreement=None, samples_ns={}, reason="SIGSEGV")


def test_each_record_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, OK)
    record.append(path, CRASHED)

    rows = frame.load_frame([path])

    assert list(rows["label"]) == ["eager", "flex"]
    assert list(rows["status"]) == ["ok", "crashed"]
    assert list(rows["reason"]) == ["", "SIGSEGV"]
    assert rows["warm_ns"][0] == pytest.approx(8.0)
    assert math.isnan(rows["warm_ns"][1])
    assert list(rows["warm_launches"]) == [2, 0]
    assert rows["error"][0] == 1e-7
    assert set(rows["machine"]) == {MACHINE.fingerprint}
    assert set(rows["problem"]) == {PROBLEM.key}
    assert list(rows["head_dim"]) == [16, 16]
    assert list(rows["name"]) == ["tiny", "tiny"]


def test_bad_lines_are_named_and_the_rest_loads(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    record.append(path, OK)
    future = msgspec.json.encode(OK).replace(b'"schema":1', b'"schema":99')
    with path.open("ab") as file:
        file.write(b"garbage\n\n\xff\xfe\n" + future + b"\n" + msgspec.json.encode(OK)[:50])

    skipped: list[record.Skipped] = []
    rows = frame.load_frame([path], skipped)

    assert len(rows) == 1
    assert [bad.line for bad in skipped] == [2, 4, 5, 6]
    assert "schema 99" in skipped[2].reason


def test_no_records_are_an_empty_frame(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.touch()
    assert len(frame.load_frame([path])) == 0


@pytest.mark.slow
def test_a_million_records_load_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    samples = {"warm": [[100.0 + i for i in range(10)] for _ in range(3)]}
    lines = [
        msgspec.json.encode(replace(OK, problem=replace(PROBLEM, seed=i % 40), label=f"b{i % 12}", samples_ns=samples))
        for i in range(1000)
    ]
    block = b"\n".join(lines) + b"\n"
    with path.open("wb") as file:
        for _ in range(1000):
            file.write(block)

    began, cpu_began = time.monotonic(), time.process_time()
    rows = frame.load_frame([path])
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    print(f"{path.stat().st_size / 1e9:.2f} GB in {seconds:.1f} s, {cpu_seconds:.1f} s of CPU time")
    assert len(rows) == 1_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 2e9
