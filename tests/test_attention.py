"""The operator: what it returns, what it refuses, what traces it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from rls_baselines.reference import steered_attention_oracle
from torch import Tensor

from rls_bench import steered_attention
from rls_bench.errors import BackendUnavailable, BackendUnsupported, UnknownBackend


def operands(heads: int = 4, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """query [2, heads, 7, 16], key and value [2, kv_heads, 11, 16], bias [2, 11]."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, 7, 16, generator=generator)
    key, value = (torch.randn(2, kv_heads, 11, 16, generator=generator) for _ in range(2))
    return query, key, value, torch.randn(2, 11, generator=generator)


def close(found: Tensor, wanted: Tensor) -> bool:
    """Within float32's reach."""
    return bool((found - wanted).norm() <= 1e-5 * wanted.norm())


@pytest.mark.parametrize("backend", ["auto", "eager", "sdpa-math", "sdpa-cpu"])
@pytest.mark.parametrize("layout", ["number", "scalar", "h", "bh", "bhq"])
def test_every_strength_layout_means_what_the_contract_says(backend: str, layout: str) -> None:
    query, key, value, bias = operands()
    shapes = {"scalar": (), "h": (4,), "bh": (2, 4), "bhq": (2, 4, 7)}
    strength = 2.5 if layout == "number" else 5.0 * torch.rand(shapes[layout])
    found = steered_attention(query, key, value, bias, strength, enable_gqa=True, backend=backend)
    assert close(found, steered_attention_oracle(query, key, value, bias, strength).output)


@pytest.mark.parametrize("shape", [(11,), (2, 11), (2, 4, 11)])
def test_every_bias_layout_means_what_the_contract_says(shape: tuple[int, ...]) -> None:
    query, key, value, _ = operands()
    bias = torch.randn(shape)
    found = steered_attention(query, key, value, bias, 2.0, enable_gqa=True, is_causal=True)
    assert close(found, steered_attention_oracle(query, key, value, bias, 2.0, is_causal=True).output)


def test_a_backend_asked_for_by_name_runs_or_raises() -> None:
    query, key, value, bias = operands()
    with pytest.raises(UnknownBackend, match=r"wanted one of .*eager.*; got 'flash'"):
        steered_attention(query, key, value, bias, enable_gqa=True, backend="flash")
    with pytest.raises(BackendUnsupported, match=r"'sdpa-cpu' cannot do .* eps must be 0"):
        steered_attention(query, key, value, bias, eps=1e-3, enable_gqa=True, backend="sdpa-cpu")
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="'sdpa-cudnn': needs CUDA"):
            steered_attention(query, key, value, bias, enable_gqa=True, backend="sdpa-cudnn")


def test_a_row_that_sees_nothing_is_zero() -> None:
    query, key, value, bias = operands()
    lengths = torch.tensor([0, 11])
    for backend in ("eager", "sdpa-math", "sdpa-cpu"):
        found = steered_attention(query, key, value, bias, key_lengths=lengths, enable_gqa=True, backend=backend)
        assert bool((found[0] == 0.0).all())
        assert bool((found[1] != 0.0).any())


def test_statistics_come_with_the_output() -> None:
    query, key, value, bias = operands()
    output, stats = steered_attention(query, key, value, bias, 2.0, enable_gqa=True, return_stats=True, backend="eager")
    exact = steered_attention_oracle(query, key, value, bias, 2.0)
    assert output.shape == (2, 4, 7, 16)
    for name, found in stats._asdict().items():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), getattr(exact, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "auto"])
def test_one_trace_holds_the_whole_call(backend: str) -> None:
    query, key, value, bias = operands()
    # The trace alone is under test, not what a compiler would make of it.
    traced = torch.compile(
        lambda q, k, v, b: steered_attention(q, k, v, b, 2.0, enable_gqa=True, backend=backend),
        fullgraph=True,
        backend="aot_eager",
    )
    assert close(traced(query, key, value, bias), steered_attention_oracle(query, key, value, bias, 2.0).output)


def test_a_trace_refuses_what_it_cannot_hold() -> None:
    query, key, value, bias = operands()
    traced = torch.compile(
        lambda q, k, v, b: steered_attention(q, k, v, b, enable_gqa=True, backend="flex"),
        fullgraph=True,
        backend="aot_eager",
    )
    with pytest.raises(Exception, match="cannot be traced"):
        traced(query, key, value, bias)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, rls_bench; "
        "print([m for m in ('torch', 'pandas', 'triton', 'rls_kernels', 'rls_baselines') if m in sys.modules]); "
        "rls_bench.steered_attention; "
        "print([m for m in ('pandas', 'triton', 'rls_bench.backends.eager') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[:2] == ["[]", "[]"]
