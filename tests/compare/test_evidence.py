"""What counts as evidence: each record once, whole lines alone, nothing from a machine that was disturbed."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import run, write

from rls_bench.choose import gather
from rls_bench.compare import compare, load
from rls_bench.records import frame, record
from rls_bench.records.record import Record

BUSY = "other processes used 43% of the CPU time: stop them, or trust no small difference"


def judged(tmp_path: Path, base: list[Record], new: list[Record], **options: object) -> object:
    sides = [load(write(tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl", side)) for side in (base, new)]
    return compare(*sides, **options)  # type: ignore[arg-type]


def test_records_given_twice_change_no_verdict(tmp_path: Path) -> None:
    base, new = run(1), run(2, between=0.02, slower={3: 1.05})
    once = judged(tmp_path, base, new)
    twice = judged(tmp_path, [*base, *base], [*new, *reversed(new), *new])
    assert twice.rows == once.rows  # type: ignore[attr-defined]


def test_a_file_that_an_editor_marked_as_utf_8_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", run(1))
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    skipped: list[record.Skipped] = []
    assert list(record.read(marked, skipped)) == list(record.read(path))
    assert load(marked).cells.keys() == load(path).cells.keys()
    assert frame.load_frame([marked], skipped).equals(frame.load_frame([path]))
    assert not skipped


def test_files_given_twice_are_one(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", run(1))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    assert record.read_all([path, copy, path]) == list(record.read(path))
    (once,), (twice,) = gather(record.read_all([path])), gather(record.read_all([path, copy]))
    assert twice == once


def test_other_figures_of_the_same_run_are_left_out_by_name(tmp_path: Path) -> None:
    first = run(1)[0]
    other = replace(first, samples_ns={"warm": [[1.0, 2.0, 3.0]] * 3})
    path = write(tmp_path / "r.jsonl", [first, other])
    skipped: list[record.Skipped] = []
    assert record.read_all([path], skipped) == [first]
    assert [(bad.line, first.label in bad.reason) for bad in skipped] == [(2, True)]
    side = load(path)
    assert (side.skipped, "line 2: run" in side.first_skipped) == (1, True)


@pytest.mark.parametrize(("base_told", "new_told"), [([], [BUSY]), ([BUSY], [])])
def test_a_busy_machine_is_said_first_and_slows_no_code(
    base_told: list[str], new_told: list[str], tmp_path: Path
) -> None:
    base = [replace(entry, warnings=base_told) for entry in run(1)]
    new = [replace(entry, warnings=new_told) for entry in run(2, slower=dict.fromkeys(range(40), 5.0))]
    found = judged(tmp_path, base, new)
    assert set(found.counts) == {"AMBIGUOUS"}  # type: ignore[attr-defined]
    assert found.exit_code == 3  # type: ignore[attr-defined]
    assert f"measured while {BUSY}" in found.cautions[0]  # type: ignore[attr-defined]
    assert "on a quiet machine" in found.rows[0].reason  # type: ignore[attr-defined]


def test_two_busy_runs_are_compared_with_the_caution(tmp_path: Path) -> None:
    base, new = ([replace(entry, warnings=[BUSY]) for entry in side] for side in (run(1), run(2, slower={3: 2.0})))
    found = judged(tmp_path, base, new)
    assert found.counts["SLOWER"] == 1  # type: ignore[attr-defined]
    assert len(found.cautions) == 2  # type: ignore[attr-defined]


def with_floor(records: list[Record]) -> list[Record]:
    """As if the first backend were plain attention."""
    first = records[0].backend
    return [
        replace(entry, backend="unsteered", label=entry.label.replace(first, "unsteered"))
        if entry.backend == first
        else entry
        for entry in records
    ]


def test_plain_attention_that_moved_witnesses_the_machine(tmp_path: Path) -> None:
    slower = dict.fromkeys(range(40), 5.0)
    found = judged(tmp_path, with_floor(run(1)), with_floor(run(2, slower=slower)))
    assert set(found.counts) == {"AMBIGUOUS"}  # type: ignore[attr-defined]
    assert "plain attention, which no commit changes, took 5" in found.cautions[0]  # type: ignore[attr-defined]


def test_a_new_torch_may_slow_plain_attention(tmp_path: Path) -> None:
    new = with_floor(run(2, slower=dict.fromkeys(range(40), 5.0)))
    new = [replace(entry, machine=replace(entry.machine, torch="99.0")) for entry in new]
    assert "SLOWER" in judged(tmp_path, with_floor(run(1)), new).counts  # type: ignore[attr-defined]


def test_plain_attention_that_stood_witnesses_the_code(tmp_path: Path) -> None:
    found = judged(tmp_path, with_floor(run(1)), with_floor(run(2, slower={3: 1.5})))
    assert found.counts["SLOWER"] == 1  # type: ignore[attr-defined]


def test_coverage_that_is_lost_has_a_code_and_an_opt_out_by_name(tmp_path: Path) -> None:
    base, new = run(1), run(2)
    lost = {entry.backend for entry in new[:1]}
    left = [entry for entry in new if entry.backend not in lost]
    assert judged(tmp_path, base, left).exit_code == 4  # type: ignore[attr-defined]
    assert judged(tmp_path, base, left, may_go=lost).exit_code == 0  # type: ignore[attr-defined]
    assert judged(tmp_path, base, left, may_go=["another"]).exit_code == 4  # type: ignore[attr-defined]
    # A slowdown says more.
    slower = [entry for entry in run(2, slower={5: 2.0}) if entry.backend not in lost]
    assert judged(tmp_path, base, slower).exit_code == 1  # type: ignore[attr-defined]


IMPOSSIBLE = {
    "a negative sample": {"samples_ns": {"warm": [[-5.0, -6.0]]}},
    "a sample of zero": {"samples_ns": {"warm": [[0.0, 5.0]]}},
    "a sample without end": {"samples_ns": {"warm": [[1e300]]}},
    "a huge integer": {"peak_bytes": 10**400},
    "a negative count": {"rejected": -1},
    "no such status": {"status": "fine"},
    "a batch of zero": {"problem": {"batch": 0}},
    "heads that divide nothing": {"problem": {"kv_heads": 7}},
    "a length beyond any memory": {"problem": {"key_length": 10**30}},
    "an endless strength": {"problem": {"strength": 1e305}},
    "threads below zero": {"machine": {"threads": -1}},
    "another schema": {"schema": 99},
}


def lines(tmp_path: Path, change: dict[str, object]) -> Path:
    """A good line, one that ``change`` spoilt, and a good one."""
    one, bad, two = (json.loads(text) for text in write(tmp_path / "r.jsonl", run(1)[:3]).read_text().splitlines())
    for name, value in change.items():
        bad[name] = {**bad[name], **value} if name in ("problem", "machine") else value  # type: ignore[dict-item]
    path = tmp_path / "spoilt.jsonl"
    path.write_text("\n".join(map(json.dumps, (one, bad, two))) + "\n")
    return path


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_line_is_skipped_and_named(change: dict[str, object], tmp_path: Path) -> None:
    from rls_bench.records.frame import load_frame

    path = lines(tmp_path, change)
    skipped: list[record.Skipped] = []
    assert len(record.read_all([path], skipped)) == 2
    assert [bad.line for bad in skipped] == [2]
    framed: list[record.Skipped] = []
    assert len(load_frame([path], framed)) == 3 - len(framed)
    assert [bad.line for bad in framed] == ([] if "rejected" in change else [2])


UNCOMPARED = ("peak_bytes", "rejected")


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_comparison_skips_and_names_it_too(change: dict[str, object], tmp_path: Path) -> None:
    side = load(lines(tmp_path, change))
    # What a comparison doesn't look at cannot mislead it.
    bad = int(not set(change) & set(UNCOMPARED))
    assert (side.skipped, side.first_skipped.startswith("line 2: ")) == (bad, bool(bad))


def test_a_line_nested_without_end_is_skipped_and_named(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", run(1)[:1])
    with path.open("a") as file:
        file.write('{"run":' + "[" * 200_000 + "]" * 200_000 + "}\n")
    skipped: list[record.Skipped] = []
    assert len(record.read_all([path], skipped)) == 1
    assert [bad.line for bad in skipped] == [2]
    assert load(path).skipped == 1
