"""Every combination of options that a launch may ask a kernel for is a program that Triton accepts.

The interpreter runs no loop that has no turns, and checks no types there; a compiler does.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import triton
from rls_kernels.triton import variants
from rls_kernels.triton.variants import Variant
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend

from rls_bench.inspector.cases import case
from rls_bench.inspector.compile import ast_source

ARCH, HEAD_DIM = 80, 64
SWITCHES = list(itertools.product((False, True), repeat=3))


def parse(variant: Variant) -> str:
    """Triton's own dialect of ``variant``, the first thing that it compiles to."""
    source = case(variant, f"sm_{variant.arch}").source
    ast = ast_source(source)
    target = GPUTarget("cuda", variant.arch, 32)
    backend = make_backend(target)
    options = backend.parse_options({"num_warps": source.num_warps, "num_stages": source.num_stages})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = ast.make_ir(
        target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    return str(module)


def with_lengths(variant: Variant) -> Variant:
    operands = variant.signature["operands"]._replace(lengths_ptr="*i32")
    return replace(variant, signature={**variant.signature, "operands": operands})


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("layout", ["scalar", "bhq"])
@pytest.mark.parametrize(("causal", "eps", "stats"), SWITCHES)
def test_prefill(causal: bool, eps: bool, stats: bool, layout: str, dtype: str) -> None:
    for wide in (False, True) if (eps or stats) and layout == "scalar" and dtype == "bf16" else (False,):
        variant = variants.prefill(
            ARCH, HEAD_DIM, dtype, is_causal=causal, eps=eps, stats=stats, strength_layout=layout, wide=wide
        )
        assert "tt.dot" in parse(with_lengths(variant))


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize(("causal", "eps", "stats"), SWITCHES)
def test_decode(causal: bool, eps: bool, stats: bool, per_head: bool) -> None:
    for dtype in ("bf16", "fp32"):
        variant = variants.decode(ARCH, HEAD_DIM, dtype, is_causal=causal, eps=eps, stats=stats, bias_per_head=per_head)
        assert "tt.dot" in parse(with_lengths(variant))


@pytest.mark.parametrize(("causal", "eps", "per_query"), SWITCHES)
def test_backward(causal: bool, eps: bool, per_query: bool) -> None:
    layout = "bhq" if per_query else "scalar"
    for dtype in ("bf16", "fp32"):
        for variant in variants.backward(ARCH, HEAD_DIM, dtype, is_causal=causal, eps=eps, strength_layout=layout):
            assert "tt.dot" in parse(with_lengths(variant))


def test_what_triton_refuses_is_seen() -> None:
    variant = variants.prefill(ARCH, HEAD_DIM)
    with pytest.raises(triton.CompilationError):
        parse(replace(variant, constexprs={**variant.constexprs, "BLOCK_N": 48}))
