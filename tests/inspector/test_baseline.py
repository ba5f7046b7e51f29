from dataclasses import replace

import pytest
from inspector.found import STEERED, UNSTEERED, hot_loop, inspection

from rls_bench.errors import InspectionError
from rls_bench.inspector import baseline
from rls_bench.inspector.bars import judge
from rls_bench.inspector.baseline import Listing, Tolerance, regressions, unknown_to
from rls_bench.problems.problem import Problem

_PROBLEM = Problem(1, 1, 1, 64, 64, 64, 64)


def grown(after, before=None, **options):
    return regressions(Listing("triton", [before or inspection()]), Listing("triton", after), **options)


def test_the_same_again_is_no_regression():
    assert grown([inspection()]) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"registers": 209}, "registers grew from 200 to 209"),
        ({"spill_bytes": 4}, "spill bytes grew from 0 to 4"),
        ({"stack_bytes": 8}, "stack bytes grew from 0 to 8"),
        ({"hot_loops": [hot_loop(10.3)]}, "instructions a score grew from 10.00 to 10.30"),
        ({"hot_loops": []}, "the hot loop is gone"),
        ({"error": "Triton cannot compile it"}, "Triton cannot compile it"),
    ],
)
def test_growth_is_a_regression(changes, says):
    assert grown([inspection(**changes)]) == [f"sm_80 prefill D64 bf16 λ[scalar]: {says}"]


def test_growth_within_the_tolerance_passes():
    after = inspection(registers=208, hot_loops=[hot_loop(10.2)])
    assert grown([after]) == []
    assert len(grown([after], tolerance=Tolerance(registers=0, instructions=0.0))) == 2


def test_a_lost_case_is_a_regression_unless_a_selection_was_asked_for():
    others = [inspection(UNSTEERED)]
    assert grown(others) == ["sm_80 prefill D64 bf16 λ[scalar]: in the baseline, and inspected no more"]
    assert grown(others, whole=False) == []


def test_architectures_that_were_left_out_are_not_compared():
    assert grown([inspection(arch="sm_90")]) == []


def test_a_listing_survives_its_file(tmp_path):
    listing = Listing("triton 3", [inspection(UNSTEERED), inspection(STEERED)])
    path = tmp_path / "new" / "listing.json"
    baseline.write(path, listing)
    assert baseline.read(path) == listing
    # One inspection a line, for the sake of diffs.
    assert sum('"variant"' in line for line in path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "wanted what"), ('{"toolchain":"t","inspections":[],"schema":99}', "wanted schema 1; got 99")],
)
def test_a_file_that_is_no_listing_is_refused(tmp_path, text, says):
    path = tmp_path / "listing.json"
    path.write_text(text)
    with pytest.raises(InspectionError, match=says):
        baseline.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InspectionError, match=r"none\.json: cannot be read"):
        baseline.read(tmp_path / "none.json")


def test_a_bar_no_longer_met_is_a_regression():
    """A few instructions within the tolerance may still cross a bar, and another tensor path grows nothing."""
    wgmma, slow = (inspection(arch="sm_90", tensor_path=path) for path in ("wgmma", "mma.sync"))
    before, after = (Listing("t", [one], bars=judge([one], {})) for one in (wgmma, slow))
    assert regressions(before, after) == ["sm_90 prefill D64 bf16 λ[scalar]: tensor path was within wgmma, is mma.sync"]
    assert regressions(after, before) == regressions(after, after) == []


def test_every_case_of_a_smaller_kernel_counts():
    """The mean of a listing may fall while one case grows."""
    before = Listing("t", [inspection(UNSTEERED), inspection(STEERED)])
    after = [inspection(UNSTEERED, instructions=5.0), inspection(replace(STEERED), instructions=12.0)]
    assert len(regressions(before, Listing("t", after))) == 1


def test_cases_that_the_baseline_does_not_have_are_named():
    before, now = Listing("t", [inspection(UNSTEERED)]), Listing("t", [inspection(UNSTEERED), inspection(STEERED)])
    assert unknown_to(before, now) == ["sm_80 prefill D64 bf16 λ[scalar]"]
    assert unknown_to(now, before) == []


def test_the_same_findings_are_the_same_file(tmp_path):
    """Sets come in an order of their own in each process."""
    from rls_bench.inspector.floors import Floor, Prediction
    from rls_bench.inspector.gpus import gpus

    texts = []
    for names in (("tensor", "mufu", "fp32", "dram"), ("dram", "fp32", "mufu", "tensor")):
        floor = Floor({"tensor": 1.0}, frozenset(names))
        predicted = Prediction(_PROBLEM, gpus()["a10"], floor, floor)
        baseline.write(tmp_path / "listing.json", Listing("t", [], model_floors=[predicted]))
        texts.append((tmp_path / "listing.json").read_text())
    assert texts[0] == texts[1]
    assert '"unsure":["dram","fp32","mufu","tensor"]' in texts[0]
