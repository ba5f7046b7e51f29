"""The roofline's arithmetic, on ceilings and times that are given; and once on what this machine has."""

from __future__ import annotations

import pytest
import torch
from fake_cuda import FakeCuda

from rls_bench.probes import roofline
from rls_bench.problems.problem import Problem
from rls_bench.timing.ahead import Ahead

# 2.1 GFLOP on 4 MiB: far to the right of any ridge here.
COMPUTE = Problem(1, 8, 8, 1024, 1024, 64, 64)
# One query over a long cache: hardly any work on every byte.
MEMORY = Problem(1, 8, 8, 1, 4096, 64, 64)


def measures(problem: Problem, monkeypatch: pytest.MonkeyPatch, call_ns: float) -> roofline.Measures:
    monkeypatch.setattr(roofline, "copy_bandwidth", lambda device: 10.0)
    monkeypatch.setattr(roofline, "matrix_product", lambda device, dtype: 0.1)
    monkeypatch.setattr(roofline, "_best_ns", lambda call, device, repeats: call_ns)
    return roofline.PROBE.measure(lambda: None, "fake", problem)


def test_a_call_on_the_compute_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.1 TFLOP/s is 100 operations a nanosecond.
    found = measures(COMPUTE, monkeypatch, 2 * COMPUTE.flops / 100)
    assert found["bound_by"] == "compute"
    assert found["peak_percent"] == pytest.approx(50)
    assert found["achieved_tflop_per_s"] == pytest.approx(0.05)


def test_a_call_under_the_memory_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = MEMORY.input_bytes + MEMORY.output_bytes
    found = measures(MEMORY, monkeypatch, 4 * moved / 10)
    assert found["bound_by"] == "memory"
    assert found["peak_percent"] == pytest.approx(25)
    assert found["achieved_gb_per_s"] == pytest.approx(2.5)


def test_ceilings_are_measured_here_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_COPY_BYTES", 8 << 20)
    monkeypatch.setattr(roofline, "_PRODUCT_SIZES", (64, 128))
    roofline.copy_bandwidth.cache_clear()
    roofline.matrix_product.cache_clear()
    query = torch.ones(1, 8, 256, 64)
    attention = torch.nn.functional.scaled_dot_product_attention
    found = roofline.PROBE.measure(lambda: attention(query, query, query), "fake", Problem(1, 8, 8, 256, 256, 64, 64))
    assert all(value for value in found.values())
    assert roofline.copy_bandwidth("cpu") == found["ceiling_gb_per_s"]
    # A half product is never taken for slower than float32's: a kernel may widen first.
    assert roofline.matrix_product("cpu", "float16") >= roofline.matrix_product("cpu", "float32")
    roofline.copy_bandwidth.cache_clear()
    roofline.matrix_product.cache_clear()


def test_what_a_gpus_host_takes_to_launch_is_not_the_calls_time(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeCuda(launch_ns=60_000)
    monkeypatch.setattr(roofline, "Ahead", lambda cuda: Ahead(device, device.now_ns))
    assert roofline._best_ns(device.kernel("a", 1_000), "cuda", 3) == 1_000
