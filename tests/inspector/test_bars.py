from dataclasses import replace

import pytest
from inspector.found import PER_QUERY, STEERED, UNSTEERED, inspection

from rls_bench.inspector.bars import judge, tally
from rls_bench.inspector.tax import taxes


def unmet(*inspections):
    return [bar.name for bar in judge(inspections, taxes(inspections)) if not bar.met]


def test_a_healthy_kernel_meets_every_bar():
    healthy = [inspection(UNSTEERED), inspection(STEERED, instructions=11.0), inspection(PER_QUERY, fp32=5.1)]
    assert unmet(*healthy) == []
    assert len(judge(healthy, taxes(healthy))) > 12


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"spill_bytes": 4}, "spill bytes"),
        ({"stack_bytes": 8}, "stack bytes"),
        ({"tensor_path": "none"}, "tensor path"),
        ({"arch": "sm_90"}, "tensor path"),
        ({"blocks_per_sm": 0}, "fits an SM"),
        ({"instructions": 10.1}, "unsteered, instructions a score"),
    ],
)
def test_each_bar_can_be_missed(changes, name):
    assert name in unmet(inspection(UNSTEERED, **changes))


@pytest.mark.parametrize("changes", [{"dtype": "fp32"}, {"head_dim": 256}, {"kernel": "prefill-wide", "eps": True}])
def test_no_dtype_width_or_kernel_may_spill(changes):
    variant = replace(STEERED, **changes)
    assert unmet(inspection(variant)) == []
    assert unmet(inspection(variant, spill_bytes=4)) == ["spill bytes"]


def test_the_steering_tax_can_be_missed():
    base = inspection(UNSTEERED)
    assert unmet(base, inspection(STEERED, fp32=4.5)) == ["steering tax, fp32 a score"]
    assert unmet(base, inspection(STEERED, instructions=11.2)) == ["steering tax, instructions a score"]
    # A λ of each query's own is allowed one FP32 instruction.
    assert unmet(base, inspection(PER_QUERY, fp32=5.0, instructions=11.9)) == []


def test_a_backward_kernel_may_have_a_stack_and_no_spills():
    backward = replace(STEERED, kernel="backward")
    assert unmet(inspection(backward, stack_bytes=8)) == []
    assert unmet(inspection(backward, spill_bytes=8)) == ["spill bytes"]


def test_another_tile_is_no_way_round_the_unsteered_bar():
    assert unmet(inspection(UNSTEERED, block_n=32, instructions=1.0)) == ["unsteered, instructions a score"]
    assert unmet(inspection(UNSTEERED, hot_loops=[])) == ["unsteered, instructions a score"]


def test_bars_are_tallied_by_name():
    cases = [inspection(UNSTEERED, spill_bytes=4), inspection(STEERED, instructions=10.5)]
    found = tally(judge(cases, taxes(cases)))
    assert found["spill bytes"] == (1, 2)
    assert found["steering tax, fp32 a score"] == (1, 1)
