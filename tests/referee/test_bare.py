"""A tensor's bytes are read as they lie in memory, in the order of its elements."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from rls_bench.referee import bare

WHOLE = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "tensor",
    [WHOLE, WHOLE.transpose(0, 2), WHOLE[:, 1:, ::2], WHOLE[:1].expand(4, -1, -1), WHOLE.bfloat16().mT, WHOLE[:0].mT],
    ids=["dense", "transposed", "sliced", "expanded", "bfloat16", "empty"],
)
def test_bytes_are_those_of_a_dense_copy(tensor: Tensor) -> None:
    found = bare.Bytes(tensor)
    wanted = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    assert ctypes.string_at(found.address, found.size) == wanted


def test_what_is_not_as_wanted_is_told() -> None:
    wanted = (2, 3, 4), torch.float32, "cpu"
    assert bare.fault(WHOLE, *wanted) == ""
    assert bare.fault(WHOLE.half(), *wanted) == "wanted [2, 3, 4] torch.float32; got [2, 3, 4] torch.float16"
    assert bare.fault(WHOLE[0], *wanted) == "wanted [2, 3, 4] torch.float32; got [3, 4] torch.float32"
    assert bare.fault(WHOLE.to_sparse(), *wanted) == "wanted a dense tensor on cpu; got torch.sparse_coo on cpu"
    assert "negates" in bare.fault(torch._neg_view(WHOLE), *wanted)


def test_views_of_one_storage_have_one_address() -> None:
    assert bare.storage_address(WHOLE[1]) == bare.storage_address(WHOLE) != bare.storage_address(WHOLE.clone())
