"""Every verdict on a cell made to earn it, and what each side must share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import CPU, GPU, problem, record, run, write

from rls_bench.compare import Comparison, compare, load
from rls_bench.errors import RecordError
from rls_bench.records.record import Record


def judge(tmp_path: Path, base: list[Record], new: list[Record], **options: object) -> Comparison:
    across = bool(options.get("across_machines"))
    sides = [
        load(write(tmp_path / f"{name}.jsonl", records), across_machines=across)
        for name, records in (("base", base), ("new", new))
    ]
    return compare(*sides, **options)  # type: ignore[arg-type]


def verdict_of(comparison: Comparison, backend: str = "cpu") -> str:
    (row,) = [row for row in comparison.rows if row.backend == backend]
    return row.verdict


def one(factor: float = 1.0, *, between: float = 0.005, count: int = 3, **fields: object) -> list[Record]:
    """Ten steady cells of backend ``other`` and one of ``cpu``: ``factor`` slower, launches ``between`` apart."""
    steady = [record("other", problem(64 * step), apart(1e6, 0.005)) for step in range(1, 11)]
    return [*steady, record("cpu", problem(), apart(1e6 * factor, between)[:count], **fields)]


def apart(centre_ns: float, between: float) -> list[list[float]]:
    """Three launches whose medians lie ``between`` apart, relative."""
    return [[centre_ns * shift] for shift in (1 - between, 1.0, 1 + between)]


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, "SAME"), (1.10, "SLOWER"), (0.90, "FASTER"), (1.03, "AMBIGUOUS")])
def test_the_four_verdicts_on_latency(tmp_path: Path, factor: float, wanted: str) -> None:
    comparison = judge(tmp_path, one(), one(factor))
    assert verdict_of(comparison) == wanted
    assert comparison.exit_code == {"SLOWER": 1, "AMBIGUOUS": 3}.get(wanted, 0)


def test_an_interval_holds_the_planted_ratio_and_medians_are_of_launches(tmp_path: Path) -> None:
    row = next(row for row in judge(tmp_path, one(), one(1.1)).rows if row.backend == "cpu")
    assert row.low is not None
    assert row.high is not None
    assert row.low < 1.1 < row.high
    assert row.ratio == pytest.approx(1.1, rel=0.02)
    assert (row.base_launches, row.new_launches) == (3, 3)
    assert row.base_ns == pytest.approx(1e6, rel=0.02)


def test_a_noisy_cell_is_ambiguous_however_large_its_ratio_and_says_what_would_settle_it(tmp_path: Path) -> None:
    comparison = judge(tmp_path, one(between=0.3), one(1.3, between=0.3))
    row = next(row for row in comparison.rows if row.backend == "cpu")
    assert row.verdict == "AMBIGUOUS"
    assert "straddles 3.0%" in row.reason


def test_advice_counts_launches(tmp_path: Path) -> None:
    base = [record("cpu", problem(), [[100.0], [101.0], [99.0]])]
    new = [record("cpu", problem(), [[106.0], [108.0], [104.0]])]
    (row,) = judge(tmp_path, base, new).rows
    assert row.verdict == "AMBIGUOUS"
    assert "launches a side would settle it" in row.reason


def test_the_noise_floor_of_either_run_counts(tmp_path: Path) -> None:
    new = one(1.10)
    noisy = [*new[:-1], replace(new[-1], noise_floor=0.15)]
    comparison = judge(tmp_path, one(), noisy)
    assert verdict_of(comparison) == "AMBIGUOUS"
    assert "noise floor of 15.0%" in comparison.rows[0].reason
    assert judge(tmp_path, noisy, new).rows[-1].noise_floor == 0.15


def test_a_significant_difference_among_many_needs_more_than_among_few(tmp_path: Path) -> None:
    alone = {"base": apart(100.0, 0.0127), "new": apart(106.0, 0.0127)}
    few = judge(tmp_path, [record("cpu", problem(), alone["base"])], [record("cpu", problem(), alone["new"])])
    assert verdict_of(few) == "SLOWER"
    # The same cell among four cells that nobody can judge: too few for the run to vouch for its scatter.
    crowd = [record(f"b{index}", problem(), [[1.0], [5.0], [9.0]]) for index in range(3)]
    many = judge(
        tmp_path, [record("cpu", problem(), alone["base"]), *crowd], [record("cpu", problem(), alone["new"]), *crowd]
    )
    assert verdict_of(many) == "AMBIGUOUS"
    assert "could be chance" in next(row for row in many.rows if row.backend == "cpu").reason


@pytest.mark.parametrize("status", ["wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory"])
def test_a_broken_cell_is_broken_whatever_it_was(tmp_path: Path, status: str) -> None:
    broken = [record("cpu", problem(), status=status, reason="because")]
    for base in (one()[-1:], broken, [*one()[:1], record("cpu", problem(), status="unavailable")]):
        comparison = judge(tmp_path, base, broken)
        assert verdict_of(comparison) == "BROKEN"
        assert f"{status}: because" in comparison.rows[0].reason
        assert comparison.exit_code == 1


def test_new_gone_and_unmeasured_cells(tmp_path: Path) -> None:
    both = one()[0]
    measured, absent = one()[-1], record("cpu", problem(), status="unavailable", reason="no compiler")
    came = judge(tmp_path, [both, absent], [both, measured])
    assert verdict_of(came) == "NEW"
    assert "unavailable: no compiler" in came.rows[0].reason
    went = judge(tmp_path, [both, measured], [both, absent])
    assert verdict_of(went) == "GONE"
    assert went.exit_code == 0
    never = judge(tmp_path, [both, absent], [both, absent])
    assert [row.backend for row in never.rows] == ["other"]
    assert any("1 cells have no latency" in note for note in never.notes)
    mended = judge(tmp_path, [both, record("cpu", problem(), status="wrong", reason="NaN")], [both, measured])
    assert verdict_of(mended) == "NEW"


def test_throttled_and_single_launches_are_ambiguous(tmp_path: Path) -> None:
    hot = [record("cpu", problem(), status="throttled", reason="1200 MHz")]
    assert verdict_of(judge(tmp_path, one()[-1:], hot)) == "AMBIGUOUS"
    assert verdict_of(judge(tmp_path, hot, one()[-1:])) == "AMBIGUOUS"
    single = judge(tmp_path, one(), one(2.0, count=1))
    assert verdict_of(single) == "AMBIGUOUS"
    assert single.rows[0].high is None
    assert single.exit_code == 3


def test_a_twin_adds_launches_and_a_name_is_no_identity(tmp_path: Path) -> None:
    twins = [record("cpu", problem(name=label), apart(1e6, 0.01), label=label) for label in ("cpu", "cpu#2")]
    (row,) = judge(tmp_path, twins, twins).rows
    assert row.base_launches == 6


def test_the_latest_status_counts(tmp_path: Path) -> None:
    good = one()[-1:]
    comparison = judge(tmp_path, good, [*good, record("cpu", problem(), status="crashed", reason="signal 11")])
    assert verdict_of(comparison) == "BROKEN"


def test_other_machines_need_the_flag_and_the_same_device_name_does_not_matter(tmp_path: Path) -> None:
    here = [record("flex", problem(), [[2e6], [2.02e6], [1.98e6]])]
    there = [record("flex", problem(device="cuda"), [[1e6], [1.01e6], [0.99e6]], machine=GPU)]
    with pytest.raises(RecordError, match=r"different machines .*gpu_name None → NVIDIA H100.*--across-machines"):
        judge(tmp_path, here, there)
    comparison = judge(tmp_path, here, there, across_machines=True)
    assert verdict_of(comparison, "flex") == "FASTER"
    with pytest.raises(RecordError, match="wants one machine a side"):
        judge(tmp_path, here + there, there, across_machines=True)


def test_other_versions_and_drift_are_noted(tmp_path: Path) -> None:
    moved = [
        replace(
            entry,
            machine=replace(CPU, torch="2.14.0"),
            samples_ns={"warm": [[2 * ns for ns in launch] for launch in entry.samples_ns["warm"]]},
        )
        for entry in run(1, cells=12)
    ]
    notes = judge(tmp_path, run(2, cells=12), moved).notes
    assert any("torch 2.13.0 → 2.14.0" in note for note in notes)
    assert any("median cell moved by +100" in note or "median cell moved by +99" in note for note in notes)


def test_nothing_in_common_and_silly_thresholds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="share no cell"):
        judge(tmp_path, [record("a", problem(), [[1.0]])], [record("b", problem(), [[1.0]])])
    with pytest.raises(ValueError, match="threshold"):
        judge(tmp_path, one(), one(), threshold=3.0)


def test_empty_and_zero_samples_are_no_latency(tmp_path: Path) -> None:
    odd = [record("cpu", problem(), [[], [0.0]]), *one()[:1]]
    assert [row.backend for row in judge(tmp_path, odd, odd).rows] == ["other"]


def test_bad_lines_are_counted_and_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "base.jsonl", one())
    with path.open("ab") as file:
        file.write(b'garbage\n{"schema": 9}\n\n')
    side = load(path)
    assert side.skipped == 2
    assert compare(side, side).notes[0].endswith("2 unreadable lines left out")
    path.write_text("garbage\n")
    with pytest.raises(RecordError, match="wanted at least one record; got none; 1 lines"):
        load(path)
    with pytest.raises(RecordError, match="cannot be read"):
        load(tmp_path / "missing.jsonl")
