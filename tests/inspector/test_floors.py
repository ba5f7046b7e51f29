from dataclasses import replace

import numpy as np
import pytest
from inspector.found import STEERED, UNSTEERED, hot_loop, inspection

from rls_bench.inspector.floors import floor, predictions, tile_scores
from rls_bench.inspector.gpus import gpus
from rls_bench.problems.problem import Problem

PROBLEM = Problem(1, 32, 8, 4096, 4096, 64, 64, dtype="bfloat16")
A100 = gpus()["a100-sxm-80gb"]


def test_the_tensor_limit_is_flops_over_the_published_rate():
    limits = floor(PROBLEM, inspection(), A100).limits_ns
    assert limits["tensor"] == pytest.approx(PROBLEM.flops / (2048 * 108 * 1.41))


def test_each_limit_follows_its_own_figure():
    base = floor(PROBLEM, inspection(), A100).limits_ns
    for name, change in {
        "mufu": {"mufu": 2.0},
        "fp32": {"fp32_lanes": 8.0},
        "issue": {"instructions": 20.0},
        "tensor": {"tensor_flops": 512.0},
    }.items():
        changed = floor(PROBLEM, inspection(hot_loops=[replace(hot_loop(), **change)]), A100).limits_ns
        assert {key for key in base if changed[key] != base[key]} == {name}
        assert changed[name] == pytest.approx(2 * base[name])


def test_the_dram_limit_is_every_byte_once():
    moved = PROBLEM.input_bytes + PROBLEM.output_bytes + 4 * 4096
    assert floor(PROBLEM, inspection(), A100).limits_ns["dram"] == pytest.approx(moved / 2039)


def test_the_floor_is_the_largest_limit():
    result = floor(PROBLEM, inspection(instructions=100.0), A100)
    assert result.binding == "issue"
    assert result.floor_ns == max(result.limits_ns.values())


def test_mma_sync_on_hopper_is_held_to_its_own_rate():
    slow = floor(PROBLEM, inspection(arch="sm_90"), gpus()["h100-sxm"]).limits_ns["tensor"]
    fast = floor(PROBLEM, inspection(arch="sm_90", tensor_path="wgmma"), gpus()["h100-sxm"]).limits_ns["tensor"]
    assert slow / fast == pytest.approx(4096 / 2731)


def test_unsure_figures_mark_the_limits_that_rest_on_them():
    assert floor(PROBLEM, inspection(), A100).unsure == frozenset()
    assert floor(PROBLEM, inspection(arch="sm_100"), gpus()["b200"]).unsure == {"mufu"}
    assert floor(PROBLEM, inspection(arch="sm_86"), gpus()["a10"]).unsure == {"tensor", "mufu", "fp32", "issue", "dram"}


def test_another_architectures_loop_is_refused():
    with pytest.raises(ValueError, match="sm_80"):
        floor(PROBLEM, inspection(arch="sm_90"), A100)


@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (100, 300), (300, 100), (1, 77)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_tile_scores_are_those_of_tiles_with_a_visible_key(queries, keys, is_causal):
    problem = Problem(2, 3, 3, queries, keys, 64, 64, is_causal=is_causal)
    i, j = np.indices((-(-queries // 32) * 32, -(-keys // 16) * 16))
    visible = (i < queries) & (j < keys)
    if is_causal:
        visible &= j <= i + keys - queries
    tiles = visible.reshape(i.shape[0] // 32, 32, i.shape[1] // 16, 16).any(axis=(1, 3)).sum()
    assert tile_scores(problem, 32, 16) == 2 * 3 * tiles * 32 * 16


def test_predictions_pair_a_kernel_with_its_unsteered_self():
    rows = predictions(PROBLEM, [inspection(UNSTEERED, instructions=100.0), inspection(STEERED, instructions=110.0)])
    assert [row.gpu.name for row in rows] == ["a100-sxm-80gb"]
    assert rows[0].tax_percent == pytest.approx(10.0)
    assert predictions(PROBLEM, [inspection(STEERED)]) == []
