"""Every kernel as it ships: what a compiler without a GPU needs to make the very code that a launch would run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rls_kernels.triton import configurations
from rls_kernels.triton.configurations import Configuration

_POINTERS = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
_ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
_STRIDES = (
    *("stride_qb", "stride_qh", "stride_qm", "stride_qd", "stride_kb", "stride_kh", "stride_kn", "stride_kd"),
    *("stride_vb", "stride_vh", "stride_vn", "stride_vd", "stride_bias_b", "stride_bias_h", "stride_bias_n"),
    *("stride_strength_b", "stride_strength_h", "stride_strength_m"),
)
# What a launch specialises on: a stride of 1 becomes a constant, one divisible by 16 is known to be.
_UNIT_STRIDES = ("stride_qd", "stride_kd", "stride_vd", "stride_bias_n", "stride_strength_m")
_ROW_STRIDES = {"stride_row_b": "i32", "stride_row_h": "i32"}
_SIZES = ("query_heads", "group_size", "query_length", "key_length")


@dataclass(frozen=True)
class Variant:
    """One kernel, specialised for one problem class on one architecture.

    ``function`` is ``"module:attribute"`` of the ``triton.jit`` function; ``signature`` maps each run-time argument to
    its Triton type, ``constexprs`` the others to their values; ``aligned`` are the arguments that are multiples of 16
    (bytes for pointers). ``products`` are the matrix products over a tile of scores, each ``head_dim`` multiply-adds a
    score. ``strength_layout`` is ``"none"`` for the same kernel unsteered.
    """

    kernel: str
    arch: int
    head_dim: int
    dtype: str
    is_causal: bool
    eps: bool
    stats: bool
    strength_layout: str
    function: str
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...]
    configuration: Configuration
    products: int


def prefill(
    arch: int,
    head_dim: int,
    dtype: str = "bf16",
    *,
    is_causal: bool = False,
    eps: bool = False,
    stats: bool = False,
    strength_layout: str = "scalar",
    wide: bool = False,
    configuration: Configuration | None = None,
) -> Variant:
    """The prefill kernel for ``arch`` (90 for sm_90); D and Dv are ``head_dim``.

    With ``eps`` or ``stats`` that is the narrow kernel where there is one, or with ``wide`` the one that does the heads
    whose λb spans too much for it, which is called ``prefill-wide``.
    """
    options: dict[str, Any] = {"is_causal": is_causal, "eps": eps, "stats": stats, "strength_layout": strength_layout}
    # λ by query and float32 have no narrow kernel.
    has_narrow = (eps or stats) and dtype != "fp32" and strength_layout != "bhq"
    narrowest = configurations.narrowest(dtype == "fp16", stats)
    if has_narrow and not wide:
        chosen = configuration or configurations.narrow(arch, head_dim, stats=stats)
        described, pointers = _descriptors(dtype, head_dim, chosen)
        column_dtype = "fp16" if stats else dtype
        outputs = {"out_ptr": _POINTERS[dtype], "columns_ptr": _POINTERS[column_dtype]}
        outputs |= dict.fromkeys(("lse_ptr", "norm_ptr", "stats_ptr", "span_ptr"), "*fp32")
        return _variant(
            "prefill", "rls_kernels.triton.narrow:narrow_kernel", arch, head_dim, dtype, outputs,
            {**_ROW_STRIDES, "scale": "fp32", "eps": "fp32", "batches": "i32", **described},
            {**pointers, "HAS_EPS": eps, "STATS": stats, "NARROW": narrowest, "COLUMNS": configurations.columns(arch),
             "BIAS_EARLY": chosen.bias_early, "ROWS_ANEW": chosen.rows_anew, "MASKED_N": chosen.masked_n},
            chosen, 2, **options,
        )  # fmt: skip
    chosen = configuration or configurations.prefill(
        arch, head_dim, _ELEMENT_BYTES[dtype], exact_sums=stats, has_eps=eps
    )
    constexprs: dict[str, Any] = {
        "PER_QUERY": strength_layout == "bhq",
        "STATS": stats,
        "WIDER_THAN": narrowest if has_narrow else None,
        "PARTIALS": chosen.partials,
        "SUM_BY_DOT": chosen.sums_by_dot,
        "ROWS_ANEW": chosen.rows_anew,
        "MASKED_N": chosen.masked_n,
    }
    outputs = {"out_ptr": _POINTERS[dtype], "lse_ptr": "*fp32"}
    if eps:
        function = "rls_kernels.triton.floored:floored_kernel"
        outputs["norm_ptr"] = "*fp32"
        constexprs["WEIGHT_BITS"] = 15 if dtype == "fp16" else 0
        numbers = {**_ROW_STRIDES, "scale": "fp32", "eps": "fp32", "batches": "i32"}
    else:
        function = "rls_kernels.triton.prefill:prefill_kernel"
        steered = strength_layout != "none"
        constexprs |= {
            "STEERED": steered,
            "BIAS_FIRST": steered and dtype != "fp32" and strength_layout != "bhq",
            "BIAS_EARLY": chosen.bias_early,
        }
        described, pointers = _descriptors(dtype, head_dim, chosen)
        numbers = {**_ROW_STRIDES, "scale": "fp32", "batches": "i32", **described}
        constexprs |= pointers
    outputs |= {"stats_ptr": "*fp32", "span_ptr": "*fp32"}
    return _variant(
        "prefill-wide" if wide else "prefill",
        function, arch, head_dim, dtype, outputs, numbers, constexprs, chosen, 2, **options,
    )  # fmt: skip


def decode(
    arch: int, head_dim: int, dtype: str = "bf16", *, eps: bool = False, strength_layout: str = "scalar"
) -> Variant:
    """The decode kernel for one query and up to 16 query heads of a group."""
    chosen = replace(configurations.decode(arch, head_dim, _ELEMENT_BYTES[dtype]), block_m=16)
    outputs = dict.fromkeys(("partial_out_ptr", "partial_weighted_ptr", "partial_rows_ptr"), "*fp32")
    constexprs = {
        "STEERED": strength_layout != "none", "BIAS_PER_HEAD": False, "HAS_EPS": eps, "STATS": False,
    }  # fmt: skip
    return _variant(
        "decode", "rls_kernels.triton.decode:decode_kernel", arch, head_dim, dtype, outputs,
        {"scale": "fp32", "batches": "i32", "split_length": "i32"}, constexprs, chosen, 2,
        eps=eps, strength_layout=strength_layout,
    )  # fmt: skip


def backward(
    arch: int, head_dim: int, dtype: str = "bf16", *, is_causal: bool = False, eps: bool = False
) -> list[Variant]:
    """The two backward kernels: gradients by query, and by key."""
    configured = configurations.backward(arch, head_dim, _ELEMENT_BYTES[dtype], has_eps=eps)
    saved = dict.fromkeys(("lse_ptr", "norm_ptr", "delta_ptr", "residual_ptr"), "*fp32")
    saved["gradient_ptr"] = _POINTERS[dtype]
    by_query = {"query_gradient_ptr": _POINTERS[dtype], "strength_gradient_ptr": "*fp32"}
    by_key = dict.fromkeys(("key_gradient_ptr", "value_gradient_ptr"), _POINTERS[dtype]) | {
        "bias_gradient_ptr": "*fp32"
    }
    numbers = {"scale": "fp32", "eps": "fp32"}
    constexprs = {"PER_QUERY": False, "HAS_EPS": eps}
    return [
        _variant(
            f"backward-{side}",
            f"rls_kernels.triton.backward:{side}_gradient_kernel",
            arch,
            head_dim,
            dtype,
            saved | written,
            numbers,
            constexprs,
            chosen,
            products,
            is_causal=is_causal,
            eps=eps,
        )
        for (side, written, products), chosen in zip(
            (("query", by_query, 3), ("key", by_key, 4)), configured, strict=True
        )
    ]


def shipped(arch: int) -> Iterator[Variant]:
    """The variants that are looked after on ``arch``: head dims 64 and 128, and what each option adds.

    Strengths and masks take no other registers in float16 than in bfloat16, so that those aren't all here twice.
    """
    for head_dim in (64, 128):
        for layout in ("none", "scalar", "h", "bhq"):
            yield prefill(arch, head_dim, strength_layout=layout)
        yield prefill(arch, head_dim, is_causal=True)
        for wide in (False, True):
            yield prefill(arch, head_dim, eps=True, wide=wide)
            yield prefill(arch, head_dim, stats=True, wide=wide)
        yield decode(arch, head_dim)
        for eps in (False, True):
            yield from backward(arch, head_dim, eps=eps)
        yield prefill(arch, head_dim, "fp16")
        yield prefill(arch, head_dim, "fp16", eps=True)
        yield prefill(arch, head_dim, "fp16", stats=True)
        yield from backward(arch, head_dim, "fp16")
    yield prefill(arch, 256)
    yield prefill(arch, 64, "fp32")


def _descriptors(dtype: str, head_dim: int, configuration: Configuration) -> tuple[dict[str, str], dict[str, Any]]:
    """Types of the tensor descriptors of keys and values, or the constants that say that there are none."""
    names = ("key_descriptor", "value_descriptor")
    if not configuration.descriptors:
        return {}, dict.fromkeys(names)
    tile = f"1,1,{configuration.block_n},{configurations.block_width(head_dim)}"
    return dict.fromkeys(names, f"tensordesc<{dtype}[{tile}]>"), {}


def _variant(
    kernel: str,
    function: str,
    arch: int,
    head_dim: int,
    dtype: str,
    outputs: Mapping[str, str],
    numbers: Mapping[str, str],
    constexprs: Mapping[str, Any],
    configuration: Configuration,
    products: int,
    *,
    is_causal: bool = False,
    eps: bool = False,
    stats: bool = False,
    strength_layout: str = "scalar",
) -> Variant:
    width = configurations.block_width(head_dim)
    inputs = dict.fromkeys(("query_ptr", "key_ptr", "value_ptr"), _POINTERS[dtype])
    inputs |= {"bias_ptr": "*fp32", "strength_ptr": "*fp32", "lengths_ptr": "*i32"}
    strides = [stride for stride in _STRIDES if stride not in _UNIT_STRIDES]
    return Variant(
        kernel=kernel,
        arch=arch,
        head_dim=head_dim,
        dtype=dtype,
        is_causal=is_causal,
        eps=eps,
        stats=stats,
        strength_layout=strength_layout,
        function=function,
        signature=inputs | dict(outputs) | dict.fromkeys([*strides, *_SIZES], "i32") | dict(numbers),
        constexprs={
            "HEAD_DIM": head_dim,
            "VALUE_DIM": head_dim,
            "CAUSAL": is_causal,
            "HAS_LENGTHS": False,
            "PRECISION": "ieee",
            "BLOCK_M": configuration.block_m,
            "BLOCK_N": configuration.block_n,
            "BLOCK_D": width,
            "BLOCK_DV": width,
            **dict.fromkeys(_UNIT_STRIDES, 1),
            **constexprs,
        },
        aligned=(*inputs, *outputs, *strides),
        configuration=configuration,
        products=products,
    )
