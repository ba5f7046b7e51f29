"""The model's figures come from the kernel as it compiles and from the GPU's own sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rls_bench.errors import ProbeUnavailable
from rls_bench.probes import model
from rls_bench.problems.problem import Problem

# 1 GiB of keys and values in all: no cache holds them.
LONG = Problem(1, 8, 8, 32768, 32768, 128, 128, dtype="bfloat16", device="cuda")
MIB = 1 << 20


def call() -> torch.Tensor:
    raise AssertionError("a model runs nothing")


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=132, L2_cache_size=50 * MIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")


def test_a_larger_cache_serves_more(h100: None) -> None:
    found = model.PROBE.measure(call, "triton", LONG)
    assert found["l2_bytes"] == 50 * MIB
    assert 50 < found["l2_hit_rate_half_l2_percent"] <= found["l2_hit_rate_percent"] <= 100
    assert LONG.input_bytes + LONG.output_bytes <= found["dram_bytes"] <= found["dram_half_l2_bytes"]

    tiny = model.predict(LONG, "sm_90", 132, 2 * MIB)
    assert tiny["l2_hit_rate_percent"] < found["l2_hit_rate_percent"]


def test_the_tiles_are_those_that_were_tuned_here(h100: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rls_kernels.triton import configurations, tuning

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning._load.cache_clear()
    assert model.PROBE.measure(call, "triton", LONG)["tiles"] == "the table's"
    shape = tuning.shape_class(torch.bfloat16, (128, 128), (32768, 32768), 8, (False, False, False, False))
    narrow = replace(configurations.prefill(90, 128, 2), block_m=64, num_warps=4)
    tuning._keep("NVIDIA H100", shape, narrow)
    found = model.PROBE.measure(call, "triton", LONG)
    assert found["tiles"] == "tuned here"
    given = model.predict(LONG, "sm_90", 132, 50 * MIB, narrow)
    assert {name: found[name] for name in given} == given
    assert given != model.predict(LONG, "sm_90", 132, 50 * MIB)
    tuning._load.cache_clear()


@pytest.mark.parametrize(
    ("backend", "changes", "message"),
    [
        ("flex", {}, "backend triton alone"),
        ("triton", {"device": "cpu"}, "prefill on a GPU"),
        ("triton", {"query_length": 1}, "prefill on a GPU"),
    ],
)
def test_what_it_cannot_model_is_told(backend: str, changes: dict[str, object], message: str) -> None:
    problem = Problem(**{**LONG.__dict__, **changes})
    with pytest.raises(ProbeUnavailable, match=message):
        model.PROBE.measure(call, backend, problem)


def test_an_architecture_that_triton_does_not_know_is_told() -> None:
    with pytest.raises(ProbeUnavailable):
        model.predict(LONG, "sm_30", 132, 50 * MIB)
