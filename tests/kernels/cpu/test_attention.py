"""What the operator promises beside its figures: hidden garbage stays hidden, strides, tracing, determinism."""

from typing import Any

import pytest
import torch
from rls_kernels.cpu.attention import steered_attention
from torch import Tensor


def operands(query_length: int = 60, key_length: int = 130, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "query": normal(2, 4, query_length, 32).to(dtype),
        "key": normal(2, 2, key_length, 32).to(dtype),
        "value": normal(2, 2, key_length, 32).to(dtype),
        "bias": normal(2, 1, key_length),
        "strength": torch.full((1, 1, 1), 2.0),
        "scale": 32**-0.5,
    }


@pytest.mark.parametrize("query_length", [1, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_may_hold_garbage(query_length: int, dtype: torch.dtype, garbage: float) -> None:
    clean = operands(query_length, dtype=dtype)
    clean["key_lengths"] = torch.tensor([99, 0], dtype=torch.int32)
    dirty = {name: given.clone() if isinstance(given, Tensor) else given for name, given in clean.items()}
    for name in ("key", "value"):
        dirty[name][0, :, 99:] = garbage
        dirty[name][1] = garbage
    dirty["bias"][0, :, 99:] = 20.0
    for options in ({}, {"eps": 1e-3}, {"return_stats": True}):
        wanted, got = steered_attention(**clean, **options), steered_attention(**dirty, **options)
        if options.get("return_stats"):
            assert all(torch.equal(a, b) for a, b in zip(wanted[1], got[1], strict=True))
            wanted, got = wanted[0], got[0]
        assert torch.equal(wanted, got)
        assert not got[1].any()


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_a_huge_later_key_leaves_earlier_rows_alone(eps: float) -> None:
    inputs = operands(130, 130)
    wanted = steered_attention(**inputs, is_causal=True, eps=eps)
    inputs["bias"] = inputs["bias"].clone()
    inputs["bias"][:, :, -1] = 40.0
    got = steered_attention(**inputs, is_causal=True, eps=eps)
    torch.testing.assert_close(got[:, :, :-1], wanted[:, :, :-1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(got[:, :, -1], wanted[:, :, -1])


@pytest.mark.parametrize("query_length", [1, 60])
def test_strides_are_followed(query_length: int) -> None:
    inputs = operands(query_length)
    wanted = steered_attention(**inputs)
    # As a fused projection leaves them: heads inside tokens, and a cache longer than its filled part.
    for name in ("query", "key", "value"):
        inputs[name] = inputs[name].transpose(1, 2).contiguous().transpose(1, 2)
    inputs["key"] = torch.cat([inputs["key"], inputs["key"]], dim=2)[:, :, :130]
    inputs["query"] = inputs["query"].transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(steered_attention(**inputs), wanted)


@pytest.mark.parametrize("query_length", [1, 60])
def test_no_strength_is_plain_attention_bit_for_bit(query_length: int) -> None:
    inputs = operands(query_length)
    inputs["strength"] = torch.zeros(1, 1, 1)
    unsteered = steered_attention(**inputs)
    inputs["bias"] = torch.zeros_like(inputs["bias"])
    assert torch.equal(steered_attention(**inputs), unsteered)


def test_threads_do_not_change_a_bit() -> None:
    inputs, before = operands(), torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(steered_attention(**inputs, is_causal=True, eps=1e-3))
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_visible_nan_is_not_hidden() -> None:
    inputs = operands()
    inputs["key"][0, 0, 5] = float("nan")
    got = steered_attention(**inputs)
    assert got[0, :2].isnan().all()
    assert got[1].isfinite().all()


def test_torch_compile_traces_it_whole() -> None:
    inputs = operands()
    compiled = torch.compile(steered_attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**inputs, eps=1e-3), steered_attention(**inputs, eps=1e-3))


def test_the_fake_has_the_shapes_of_the_real() -> None:
    inputs = operands()
    arguments = (*(inputs[name] for name in ("query", "key", "value", "bias", "strength")), None, 0.2, 0.0, False, 2)
    found = torch.library.opcheck(
        torch.ops.rls_kernels.cpu_forward.default,
        arguments,
        test_utils=("test_schema", "test_faketensor"),
    )
    assert found == {"test_schema": "SUCCESS", "test_faketensor": "SUCCESS"}
