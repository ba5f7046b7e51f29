"""Which kernel ran, from a profiler that stands in for torch's on a GPU."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fakes
import pytest
import torch

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend
from rls_bench.runner import kernels


@dataclass(frozen=True)
class Event:
    key: str
    device_type: str = "DeviceType.CPU"
    self_cpu_time_total: float = 1.0
    self_device_time_total: float = 0.0
    is_user_annotation: bool = False


def kernel(name: str, time: float = 1.0) -> Event:
    return Event(name, "DeviceType.CUDA", 0.0, time)


def seen(monkeypatch: pytest.MonkeyPatch, backend: Backend, *events: Event) -> tuple[list[str], str]:
    """Names and the finding's status for a call of which the profiler shows ``events``."""

    class Profiler:
        def key_averages(self) -> list[Event]:
            return list(events)

    @contextmanager
    def profile(**options: Any) -> Any:
        yield Profiler()

    monkeypatch.setattr(kernels, "profile", profile)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: any("CUDA" in event.device_type for event in events))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    _, names, finding = kernels.kernels_of(backend, lambda: None)
    return names, finding.status if finding else ""


def test_cublas_names_its_kernels_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    events = kernel("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", 9.0), kernel("softmax_warp"), Event("aten::bmm")
    names, status = seen(monkeypatch, registry.get("eager"), *events)
    assert status == ""
    assert names == ["nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "softmax_warp", "aten::bmm"]


@pytest.mark.parametrize("name", ["sdpa-math", "unsteered"])
def test_the_math_kernel_is_an_operator_on_cuda_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    events = kernel("nvjet_sss_64x64"), Event("aten::_scaled_dot_product_attention_math")
    assert seen(monkeypatch, registry.get(name), *events)[1] == ""


def test_another_kernel_and_another_operator_are_the_wrong_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    events = kernel("pytorch_flash::flash_fwd_kernel"), Event("aten::_scaled_dot_product_flash_attention")
    names, status = seen(monkeypatch, registry.get("sdpa-math"), *events)
    assert status == "wrong backend"
    assert names == ["pytorch_flash::flash_fwd_kernel"]


def test_an_annotation_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    events = kernel("elementwise_kernel"), Event("cutlass_fmha", is_user_annotation=True)
    assert seen(monkeypatch, fakes.IMPOSTOR, *events)[1] == "wrong backend"


def test_torchs_own_profiler_marks_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> None:
        with torch.autograd.profiler.record_function("cutlass_fmha"):
            torch.ones(3).add(1)

    _, names, finding = kernels.kernels_of(fakes.IMPOSTOR, call)
    assert finding is not None
    assert "aten::add" in names
    assert "cutlass_fmha" not in names
