from dataclasses import replace

import numpy as np
import pytest
from inspector.found import inspection

from rls_bench.inspector.inspection import Variant
from rls_bench.inspector.l2 import Tiling, _Cache, launch_order, replay
from rls_bench.inspector.l2_sweep import LENGTHS, sweep
from rls_bench.problems.problem import Problem

PROBLEM = Problem(1, 8, 2, 2048, 2048, 128, 128, dtype="bfloat16", is_causal=True)
TILING = Tiling(block_m=128, block_n=64, resident=16)
MIB = 1 << 20


def test_a_cache_that_holds_everything_fetches_everything_once():
    result = replay(PROBLEM, TILING, 512 * MIB)
    assert result.dram_bytes == result.least_bytes
    assert all(traffic.resident for traffic in result.tensors.values())


def test_least_bytes_are_those_of_the_problem():
    assert replay(PROBLEM, TILING, 512 * MIB).least_bytes == PROBLEM.input_bytes + PROBLEM.output_bytes + 4 * 2048


def test_a_cache_too_small_fetches_keys_again_for_every_wave():
    """Blocks in step share a fetch, so that K comes once for each wave of them: 16 of a head's 64 blocks at a time."""
    dense = replace(PROBLEM, query_heads=2, is_causal=False, query_length=8192, key_length=8192)
    result = replay(dense, TILING, MIB // 8)
    assert result.tensors["key"].missed / result.tensors["key"].unique == pytest.approx(8192 / 128 / 16, rel=0.1)
    assert not result.tensors["value"].resident
    assert result.tensors["query"].resident


def test_a_larger_cache_never_moves_more():
    moved = [replay(PROBLEM, TILING, size).dram_bytes for size in (MIB // 4, MIB, 4 * MIB, 16 * MIB)]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > moved[-1]


def test_reads_are_counted_by_tile():
    dense = replace(PROBLEM, is_causal=False)
    key = replay(dense, TILING, MIB).tensors["key"]
    assert key.read == 8 * (2048 // 128) * 2048 * 128 * 2


def test_the_hit_rate_lies_between_none_and_all():
    result = replay(PROBLEM, TILING, MIB)
    assert 0 < result.hit_rate < 1


def test_blocks_with_most_keys_start_first_under_a_causal_mask():
    heads, blocks = launch_order(PROBLEM, 512)
    assert heads.tolist()[:8] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert blocks.tolist()[:4] == [3, 2, 1, 0]
    assert launch_order(replace(PROBLEM, is_causal=False), 512)[1].tolist()[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("layout", ["k", "bk", "bhk"])
@pytest.mark.parametrize(("queries", "keys"), [(100, 300), (300, 100), (1, 5000)])
def test_awkward_shapes_are_replayed(layout, queries, keys):
    problem = replace(PROBLEM, batch=2, query_length=queries, key_length=keys, value_dim=80, bias_layout=layout)
    result = replay(problem, TILING, 64 * MIB)
    assert result.dram_bytes == pytest.approx(result.least_bytes)


def test_a_sample_of_heads_predicts_the_whole_launch(monkeypatch):
    from rls_bench.inspector import l2

    long = replace(PROBLEM, query_length=4096, key_length=4096)
    sampled = replay(long, TILING, MIB)
    replay.cache_clear()
    monkeypatch.setattr(l2, "_followed_heads", lambda problem, tiling: problem.query_heads)
    whole = replay(long, TILING, MIB)
    assert sampled.followed_heads < whole.followed_heads
    assert sampled.dram_bytes == pytest.approx(whole.dram_bytes, rel=0.15)


def test_wide_rounds_predict_the_same(monkeypatch):
    from rls_bench.inspector import l2

    long = replace(PROBLEM, query_length=8192, key_length=8192)
    fine = replay(long, TILING, 2 * MIB)
    replay.cache_clear()
    monkeypatch.setattr(l2, "_MAX_ROUNDS", 32)
    assert replay(long, TILING, 2 * MIB).dram_bytes == pytest.approx(fine.dram_bytes, rel=0.15)


def test_the_least_recently_used_line_goes_first():
    cache = _Cache(lines=4)
    touch = [cache.touch(np.array([line])).tolist() for line in (1, 2, 3, 4, 1, 5, 2, 1)]
    assert touch == [[1], [2], [3], [4], [], [5], [2], []]


def test_power_of_two_strides_spread_over_power_of_two_sets():
    cache = _Cache(lines=16 << 10)
    strided = np.arange(8 << 10) * 64
    cache.touch(strided)
    assert len(cache.touch(strided)) < 0.05 * len(strided)


def test_lines_spread_over_the_sets():
    cache = _Cache(lines=16 * 64)
    assert len(cache.touch(np.arange(16 * 32))) == 16 * 32
    # Half full and hashed: hardly a set overflowed.
    assert len(cache.touch(np.arange(16 * 32))) < 0.05 * 16 * 32


def test_a_sweep_takes_each_gpu_of_an_inspected_architecture(monkeypatch):
    from rls_bench.inspector import l2_sweep

    monkeypatch.setattr(l2_sweep, "LENGTHS", LENGTHS[:2])
    kernel = inspection(Variant("prefill", 128, "bf16", is_causal=True), arch="sm_90")
    rows = sweep([kernel])
    assert [(row.gpu.name, row.length) for row in rows] == [
        (name, length) for name in ("h100-sxm", "h200") for length in (1024, 2048)
    ]
    assert all(row.half.hit_rate <= row.whole.hit_rate for row in rows)
    assert sweep([inspection()]) == []
