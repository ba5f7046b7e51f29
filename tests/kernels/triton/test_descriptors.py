"""Keys and values by tensor descriptors: the same operator, and which layouts the hardware can describe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from rls_kernels.triton import configurations, forward
from rls_kernels.triton.descriptors import describable
from steered_draws import draw
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from rls_bench import agreement
from rls_bench.backends.triton import BACKEND

# What a wide head, a padded row, a grouped head, a causal mask and each kernel's own loop ask of a descriptor.
PROBLEMS: list[dict[str, Any]] = [
    {"sizes": (2, 4, 2, 33, 63), "dims": (16, 16)},
    {"sizes": (2, 2, 1, 33, 129), "dims": (24, 40), "causal": True, "lengths": [129, 50]},
    {"sizes": (1, 2, 2, 40, 111), "dims": (64, 16), "strength": "bhq"},
    {"sizes": (1, 2, 1, 40, 270), "dims": (16, 24), "eps": 1e-3},
    {"sizes": (2, 1, 1, 40, 270), "dims": (16, 16), "stats": True, "causal": True, "lengths": [0, 257]},
    {"sizes": (1, 1, 1, 40, 270), "dims": (16, 16), "eps": 1e-3, "stats": True, "size": 100.0},
]


@pytest.fixture
def described(small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Configurations ask for descriptors; lists whether each tensor had one."""
    prefill, narrow = configurations.prefill, configurations.narrow
    monkeypatch.setattr(configurations, "prefill", lambda *a, **k: replace(prefill(*a, **k), descriptors=True))
    monkeypatch.setattr(configurations, "narrow", lambda *a, **k: replace(narrow(*a, **k), descriptors=True))
    found: list[bool] = []

    def watched(*arguments: Any) -> Any:
        strides = describable(*arguments)
        found.append(strides is not None)
        return strides

    monkeypatch.setattr(forward, "describable", watched)
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("index", range(len(PROBLEMS)))
def test_agrees(index: int, dtype: torch.dtype, described: list[bool]) -> None:
    verdict = agreement.check(BACKEND, draw(dtype=dtype, seed=index, **PROBLEMS[index]))
    assert verdict.passed, verdict.reason
    assert described
    assert all(described)


def test_what_cannot_be_described_is_loaded_by_pointers(described: list[bool]) -> None:
    verdict = agreement.check(BACKEND, draw(dtype=torch.bfloat16, dims=(20, 16)))
    assert verdict.passed, verdict.reason
    assert not all(described)


def test_tensors_off_by_two_bytes_are_loaded_by_pointers(
    described: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = draw(dtype=torch.bfloat16, sizes=(1, 1, 1, 40, 52))
    off = torch.empty(inputs.key.numel() + 1, dtype=torch.bfloat16)[1:].view(inputs.key.shape).copy_(inputs.key)
    monkeypatch.setattr(forward._Describable, "of", lambda *_: pytest.fail("described"))
    verdict = agreement.check(BACKEND, replace(inputs, key=off))
    assert verdict.passed, verdict.reason


def test_the_blocks_that_all_queries_see_come_by_descriptor(
    described: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = draw(dtype=torch.bfloat16, sizes=(1, 1, 1, 40, 52))
    right = BACKEND.prepare(inputs)()

    def of_zeros(described: Any, tensor: Tensor) -> Any:
        return TensorDescriptor(torch.zeros_like(tensor), *described)

    monkeypatch.setattr(forward._Describable, "of", of_zeros)
    assert not torch.allclose(BACKEND.prepare(inputs)(), right, atol=0.1)


BASE = torch.zeros(2, 3, 40, 64, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("tensor", "strides"),
    [
        (BASE, [7680, 2560, 64, 1]),
        (BASE.transpose(1, 2), [7680, 64, 2560, 1]),
        (BASE[..., :60], [7680, 2560, 64, 1]),
        (BASE[..., 8:40], [7680, 2560, 64, 1]),
        (BASE[:, :, :1], [7680, 2560, 64, 1]),
        # torch lets an axis of one element step by nothing or by anything.
        (BASE[:1, :1].as_strided((1, 1, 40, 64), (0, 7, 64, 1)), [2560, 2560, 64, 1]),
        (torch.zeros(1, 1, 1, 20), [32, 32, 32, 1]),
    ],
    ids=["whole", "heads inside", "narrowed", "off by 16 bytes", "one row", "ones", "one short row"],
)
def test_describable(tensor: Tensor, strides: list[int]) -> None:
    found = describable(tensor.shape, tensor.stride(), tensor.element_size())
    assert found == strides
    # Triton agrees.
    TensorDescriptor(tensor, list(tensor.shape), found, [1, 1, 16, 64])


@pytest.mark.parametrize(
    "tensor",
    [
        BASE[..., ::2],
        BASE.transpose(2, 3),
        BASE[:1].expand(2, 3, 40, 64),
        BASE[:, :, :0],
        torch.zeros(1, 1, 40, 20, dtype=torch.bfloat16),
    ],
    ids=["every other", "transposed", "expanded", "empty", "rows of 40 bytes"],
)
def test_not_describable(tensor: Tensor) -> None:
    assert describable(tensor.shape, tensor.stride(), tensor.element_size()) is None
