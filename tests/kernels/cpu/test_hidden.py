"""Keys and values that a mask hides may hold anything: NaN and infinities change nothing that doesn't see them."""

from typing import Any

import pytest
import torch
from rls_kernels.cpu.attention import steered_attention
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")

GARBAGE = [float("nan"), float("inf"), -float("inf")]
DTYPES = [torch.float32, torch.bfloat16]
KEYS = 150


def operands(query_length: int, dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "query": normal(2, 2, query_length, 40).to(dtype),
        "key": normal(2, 1, KEYS, 40).to(dtype),
        "value": normal(2, 1, KEYS, 24).to(dtype),
        "bias": normal(2, 1, KEYS),
        "strength": normal(2, 2, query_length),
        "scale": 40**-0.5,
        "is_causal": True,
    }


def with_future(inputs: dict[str, Any], names: tuple[str, ...], last: int, content: float) -> dict[str, Any]:
    """A copy whose `last` keys or values hold `content`."""
    changed = {name: given.clone() if isinstance(given, Tensor) else given for name, given in inputs.items()}
    for name in names:
        changed[name][:, :, KEYS - last :] = content
    return changed


@pytest.mark.parametrize("garbage", GARBAGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("names", [("key",), ("value",), ("key", "value")], ids=str)
@pytest.mark.parametrize("query_length", [3, 7, 60])
@pytest.mark.parametrize("scalar", [False, True])
def test_the_future_may_hold_garbage(
    isa: str, query_length: int, names: tuple[str, ...], dtype: torch.dtype, garbage: float, scalar: bool
) -> None:
    inputs = operands(query_length, dtype)
    if scalar:
        inputs["strength"] = torch.full((1, 1, 1), 2.0)
    # Rows that see a tainted block in part sum it alone, where AMX's tiles add in another order: to a rounding.
    rounding = 2.0**-7 if isa == "amx_bf16" and dtype == torch.bfloat16 else 0.0
    for last in (1, query_length - 1):
        for options in ({}, {"eps": 1e-3}, {"return_stats": True}):
            clean, dirty = (
                steered_attention(**with_future(inputs, names, last, content), **options) for content in (0, garbage)
            )
            if options.get("return_stats"):
                for wanted, got in zip(clean[1], dirty[1], strict=True):
                    assert torch.equal(wanted[..., :-last], got[..., :-last])
                clean, dirty = clean[0], dirty[0]
            assert clean[:, :, :-last].isfinite().all()
            torch.testing.assert_close(dirty[:, :, :-last], clean[:, :, :-last], rtol=rounding, atol=0.0)
            # What sees it must not hide it; an infinite key may well weigh nothing.
            if garbage != garbage or "value" in names:
                assert not dirty[:, :, -1].isfinite().all()


def gradients(inputs: dict[str, Any], upstream: Tensor, eps: float) -> dict[str, Tensor]:
    tensors = {name: inputs[name].requires_grad_() for name in ("query", "key", "value", "bias", "strength")}
    out = steered_attention(**inputs, eps=eps)
    assert isinstance(out, Tensor)
    found = torch.autograd.grad(out, list(tensors.values()), upstream)
    return dict(zip(tensors, found, strict=True))


@pytest.mark.parametrize("garbage", GARBAGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("query_length", [3, 60])
def test_the_future_reaches_no_earlier_gradient(
    isa: str, query_length: int, eps: float, dtype: torch.dtype, garbage: float
) -> None:
    inputs, last = operands(query_length, dtype), 1
    upstream = torch.randn(2, 2, query_length, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    clean, dirty = (
        gradients(with_future(inputs, ("key", "value"), last, content), upstream, eps) for content in (0, garbage)
    )
    for name in ("query", "strength"):
        wanted, got = clean[name][:, :, :-last], dirty[name][:, :, :-last]
        assert wanted.isfinite().all()
        assert torch.equal(wanted, got), name


@pytest.mark.parametrize("garbage", GARBAGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_padding_under_causality_reaches_no_gradient(isa: str, eps: float, dtype: torch.dtype, garbage: float) -> None:
    inputs = operands(60, dtype)
    inputs["key_lengths"] = torch.tensor([KEYS - 20, 0], dtype=torch.int32)
    upstream = torch.randn(2, 2, 60, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    clean, dirty = (
        gradients(with_future(inputs, ("key", "value"), 20, content), upstream, eps) for content in (0, garbage)
    )
    for name, wanted in clean.items():
        assert wanted.isfinite().all()
        assert torch.equal(wanted, dirty[name]), name
