"""Every verdict on a cell made to earn it, and what each side must share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn_records import CPU, GPU, problem, record, run, write

from rls_bench.compare import Comparison, compare, load
from rls_bench.errors import RecordError
from rls_bench.machines.machine import Machine
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
    assert went.exit_code == 4
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


def test_a_twin_adds_no_launches_and_a_name_is_no_identity(tmp_path: Path) -> None:
    """It met the same neighbours in the same launches: a base of one launch knows nothing of the next."""
    twins = [record("cpu", problem(name=label), apart(1e6, 0.01), label=label) for label in ("cpu", "cpu#2")]
    (row,) = judge(tmp_path, twins, twins).rows
    assert row.base_launches == 3
    alone = [record("cpu", problem(), apart(1e6, 0.01)[:1], label=label) for label in ("cpu", "cpu#2")]
    assert verdict_of(judge(tmp_path, alone, twins)) == "AMBIGUOUS"


@pytest.mark.parametrize("labels", [("cpu", "cpu#2"), ("cpu#2", "cpu")])
def test_of_a_runs_labels_the_worst_counts(tmp_path: Path, labels: tuple[str, str]) -> None:
    good = [record("cpu", problem(), apart(1e6, 0.01), label=labels[0])]
    half = [record("cpu", problem(), status="wrong", reason="another result", label=labels[1]), *good]
    for mixed in (half, half[::-1]):
        comparison = judge(tmp_path, good, mixed)
        assert verdict_of(comparison) == "BROKEN"
        assert comparison.exit_code == 1


def test_only_a_later_run_replaces_a_status(tmp_path: Path) -> None:
    good = one()[-1:]
    crashed = record("cpu", problem(), status="crashed", reason="signal 11", run="run-2")
    assert verdict_of(judge(tmp_path, good, [*good, crashed])) == "BROKEN"
    assert verdict_of(judge(tmp_path, good, [crashed, *one(run="run-3")[-1:]])) == "SAME"
    # By the time of the run, and not by its place in the file.
    late = replace(crashed, created="2027-01-01T00:00:00Z")
    assert verdict_of(judge(tmp_path, good, [late, *one(run="run-3")[-1:]])) == "BROKEN"


def test_the_newest_commit_speaks_and_the_older_one_is_named(tmp_path: Path) -> None:
    old = one(2.0, commit="c" * 40, run="old")[-1:]
    comparison = judge(tmp_path, one()[-1:], [*old, *one()[-1:]])
    assert verdict_of(comparison) == "SAME"
    assert any("older commits, too (cccccccccccc)" in note for note in comparison.notes)


def test_several_runs_are_one_unit_each(tmp_path: Path) -> None:
    """A run that moved a cell by 2 % moved all of its launches, however well they agree."""
    runs = [record("cpu", problem(), apart(1e6 * shift, 0.001), run=str(shift)) for shift in (0.98, 1.0, 1.02)]
    (row,) = judge(tmp_path, runs, runs).rows
    assert row.base_launches == 9
    assert row.low is not None
    assert row.low < 0.97


def test_other_machines_need_the_flag_and_the_same_device_name_does_not_matter(tmp_path: Path) -> None:
    here = [record("flex", problem(), [[2e6], [2.02e6], [1.98e6]])]
    there = [record("flex", problem(device="cuda"), [[1e6], [1.01e6], [0.99e6]], machine=GPU)]
    with pytest.raises(RecordError, match=r"different machines .*gpu_name None → NVIDIA H100.*--across-machines"):
        judge(tmp_path, here, there)
    comparison = judge(tmp_path, here, there, across_machines=True)
    assert verdict_of(comparison, "flex") == "FASTER"
    with pytest.raises(RecordError, match="wants one machine a side"):
        judge(tmp_path, here + there, there, across_machines=True)


def test_across_machines_cycles_stand_beside_time_where_clocks_were_measured(tmp_path: Path) -> None:
    def at(clock: float | None, machine: Machine, *times: float) -> list[Record]:
        probes: dict[str, dict[str, float | str | None]] = {"nvml": {"sm_clock_mhz": clock}} if clock else {}
        return [record("flex", problem(device="cuda"), [[time] for time in times], machine=machine, probes=probes)]

    other = replace(GPU, gpu_name="NVIDIA B200", gpu_arch="sm_100")
    slow, quick = at(1500.0, GPU, 2e6, 2.02e6, 1.98e6), at(2000.0, other, 1e6, 1.01e6, 0.99e6)
    (row,) = judge(tmp_path, slow, quick, across_machines=True).rows
    assert row.ratio == pytest.approx(0.5, rel=1e-3)
    # Half the time at four thirds of the clock.
    assert row.cycles_ratio == pytest.approx(2 / 3, rel=1e-3)
    (unknown,) = judge(tmp_path, slow, at(None, other, 1e6, 1.01e6, 0.99e6), across_machines=True).rows
    assert unknown.cycles_ratio is None
    (same,) = judge(tmp_path, slow, slow).rows
    assert same.cycles_ratio is None


def test_other_versions_and_drift_are_noted(tmp_path: Path) -> None:
    moved = [
        replace(
            entry,
            machine=replace(CPU, torch="2.14.0"),
            samples_ns={"warm": [[2 * ns for ns in launch] for launch in entry.samples_ns["warm"]]},
        )
        for entry in run(1, cells=12)
    ]
    found = judge(tmp_path, run(2, cells=12), moved)
    assert any("torch 2.13.0 → 2.14.0" in note for note in found.notes)
    assert any("median cell moved by +100" in line or "median cell moved by +99" in line for line in found.cautions)
    # A doubled latency is SLOWER whoever did it, and says that all cells doubled.
    assert found.counts["SLOWER"] == 12
    assert all("no more than the median cell" in row.reason for row in found.rows)


def drifting(seed: int, start: int, slower: dict[int, float] | None = None) -> list[Record]:
    """Twelve cells of three launches on a machine that slows by 1 % a launch, from launch ``start`` on."""
    return [
        replace(
            entry,
            samples_ns={
                "warm": [
                    [ns * 1.01 ** (start + place) for ns in launch]
                    for place, launch in enumerate(entry.samples_ns["warm"])
                ]
            },
        )
        for entry in run(seed, cells=12, between=0.003, slower=slower)
    ]


def test_a_machine_that_drifts_is_said_before_any_verdict_and_slows_no_cell(tmp_path: Path) -> None:
    base = drifting(1, 0)
    found = judge(tmp_path, base, drifting(2, 6))
    assert any("drifted" in line and "a launch" in line for line in found.cautions)
    assert "SLOWER" not in found.counts
    # What stands out against the median cell is still found.
    planted = judge(tmp_path, base, drifting(2, 3, slower={5: 1.10}))
    assert [row.verdict for row in planted.rows].count("SLOWER") == 1
    assert not judge(tmp_path, run(1, cells=12), run(2, cells=12)).cautions


def test_one_launch_that_went_astray_blinds_no_other_cell(tmp_path: Path) -> None:
    base = run(1, cells=12, between=0.003)
    wild = base[-1].samples_ns["warm"]
    astray = [*base[:-1], replace(base[-1], samples_ns={"warm": [wild[0], [3 * ns for ns in wild[1]], wild[2]]})]
    planted = run(2, cells=12, between=0.003, slower={0: 1.06})
    for sides in (base, astray):
        assert judge(tmp_path, sides, planted).counts["SLOWER"] == 1


def test_a_noisy_machine_in_the_same_file_blinds_no_cell_of_the_quiet_one(tmp_path: Path) -> None:
    noisy = [run(seed, cells=12, between=0.08, machine=GPU, run="noisy") for seed in (3, 4)]
    sides = [run(1, cells=12, between=0.003), run(2, cells=12, between=0.003, slower={0: 1.06})]
    found = judge(tmp_path, *(side + other for side, other in zip(sides, noisy, strict=True)))
    assert found.counts["SLOWER"] == 1


def test_a_verdict_says_what_it_is_sure_of(tmp_path: Path) -> None:
    (slow, *_) = judge(tmp_path, one(), one(1.10)).rows
    assert slow.verdict == "SLOWER"
    assert slow.low is not None
    assert slow.reason == f"by at least {100 * (slow.low - 1):.2g} %"
    assert all(row.reason.startswith("within ") for row in judge(tmp_path, one(), one()).rows)


def test_strictly_judged_a_difference_about_the_threshold_is_not_beyond_it(tmp_path: Path) -> None:
    def cells(factor: float) -> list[Record]:
        steady = [record("other", problem(64 * step), apart(1e6, 0.002)) for step in range(1, 11)]
        return [*steady, record("cpu", problem(), apart(1e6 * factor, 0.002))]

    base, new = cells(1.0), cells(1.0355)
    assert verdict_of(judge(tmp_path, base, new)) == "SLOWER"
    strict = judge(tmp_path, base, new, strict=True)
    assert verdict_of(strict) == "AMBIGUOUS"
    assert "beyond 3.0% perhaps by chance" in next(row.reason for row in strict.rows if row.backend == "cpu")
    assert verdict_of(judge(tmp_path, base, cells(1.1), strict=True)) == "SLOWER"


def test_a_clock_too_coarse_to_tell_launches_apart_gives_no_verdict(tmp_path: Path) -> None:
    same = [record("cpu", problem(), [[1e6] * 5] * 3)]
    (row,) = judge(tmp_path, same, same).rows
    assert (row.verdict, row.low) == ("AMBIGUOUS", None)
    assert "clock is too coarse" in row.reason


def test_advice_is_about_the_launches_that_do(tmp_path: Path) -> None:
    """Launches 2 % apart, 5 % against a threshold of 3 %: two estimates 1.9 % from it want some fifteen launches."""
    base = [record("cpu", problem(), [[100.0], [102.0], [98.0]])]
    (row,) = judge(tmp_path, base, [record("cpu", problem(), [[105.0], [107.1], [102.9]])]).rows
    assert 10 <= int(row.reason.split("about ")[1].split()[0]) <= 20


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
