"""On a GPU the floor is the fastest plain kernel that runs; and what masks before torch 2.14 may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rls_bench.backends import sdpa, unsteered
from rls_bench.problems.problem import Problem

GROUPED = Problem(1, 8, 2, 64, 64, 64, 64, dtype="bfloat16", device="cuda", is_causal=True)


def calls_taking(monkeypatch: pytest.MonkeyPatch, **times: float | None) -> list[Callable[[], Any]]:
    """A call for each name, which takes that long or is refused by torch."""
    took = {}

    def made(name: str, ms: float | None) -> Callable[[], str]:
        def call() -> str:
            if ms is None:
                raise RuntimeError(f"{name}: no available kernel")
            return name

        took[call] = ms
        return call

    calls = [made(name, ms) for name, ms in times.items()]
    monkeypatch.setattr(unsteered, "_device_ms", took.__getitem__)
    return calls


def test_the_floor_is_the_fastest_kernel_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = calls_taking(monkeypatch, flash=2.0, cudnn=1.0, efficient=None, math=9.0)
    assert unsteered._fastest(calls)() == "cudnn"
    calls = calls_taking(monkeypatch, flash=2.0, cudnn=None, math=9.0)
    assert unsteered._fastest(calls)() == "flash"


def test_where_torch_refuses_all_its_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="math: no available kernel"):
        unsteered._fastest(calls_taking(monkeypatch, flash=None, math=None))


def test_on_a_gpu_cudnn_is_asked_too_and_on_a_cpu_nothing_is_timed() -> None:
    able = [kernel.__name__ for kernel in unsteered.BACKEND._able(GROUPED, None)]
    assert able == ["flash_attention", "cudnn_attention", "math_attention"]
    on_cpu = Problem(1, 8, 2, 64, 64, 64, 64)
    assert unsteered.BACKEND._able(on_cpu, None)[0].__name__ == "flash_attention"


@pytest.mark.parametrize("backend", [sdpa.EFFICIENT, sdpa.CUDNN])
@pytest.mark.parametrize("version", ["2.11.0+cu130", "2.14.0"])
def test_groups_and_masks_work_before_torch_2_14(backend: Any, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    seen: dict[str, Any] = {}

    def kernel(query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        seen.update(heads=key.shape[1], mask=mask.dtype)
        return query

    monkeypatch.setattr(sdpa, "efficient_attention", kernel)
    monkeypatch.setattr(sdpa, "cudnn_attention", kernel)
    assert backend.supports(GROUPED)
    query, key = torch.zeros(1, 8, 4, 8, dtype=torch.bfloat16), torch.zeros(1, 2, 4, 8, dtype=torch.bfloat16)
    backend.attend(query, key, key, torch.zeros(1, 1, 4, 4), 1.0)
    old = version.startswith("2.11")
    assert seen["heads"] == (8 if old and backend is sdpa.EFFICIENT else 2)
    assert seen["mask"] == (torch.bfloat16 if old or backend is sdpa.EFFICIENT else torch.float32)


def test_a_rounded_mask_keeps_what_is_hidden_hidden() -> None:
    mask = torch.tensor([-torch.inf, 0.0, 1e38, -1e38])
    assert sdpa._rounded(mask, torch.float16).tolist() == [-torch.inf, 0.0, 65504.0, -65504.0]
