"""Every kernel as it ships: what a compiler without a GPU needs to make the very code that a launch would run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
_SIZES = ("batches", "query_heads", "group_size", "query_length", "key_length")


@dataclass(frozen=True)
class Variant:
    """One kernel, specialised for one problem class on one architecture.

    ``function`` is ``"module:attribute"`` of the ``triton.jit`` function; ``signature`` maps each run-time argument to
    its Triton type, ``constexprs`` the others to their values; ``aligned`` are the arguments that are multiples of 16
    (bytes for pointers). ``strength_layout`` is ``"none"`` for the same kernel unsteered.
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


def prefill(
    arch: int,
    head_dim: int,
    dtype: str = "bf16",
    *,
    is_causal: bool = False,
    eps: bool = False,
    stats: bool = False,
    strength_layout: str = "scalar",
    configuration: Configuration | None = None,
) -> Variant:
    """The prefill kernel, or with ``eps`` the floored one, for ``arch`` (90 for sm_90); D and Dv are ``head_dim``."""
    chosen = configuration or configurations.prefill(arch, head_dim, _ELEMENT_BYTES[dtype], exact_sums=eps or stats)
    steered = strength_layout != "none"
    width = max(16, 1 << (head_dim - 1).bit_length())
    constexprs: dict[str, Any] = {
        "HEAD_DIM": head_dim,
        "VALUE_DIM": head_dim,
        "CAUSAL": is_causal,
        "HAS_LENGTHS": False,
        "PER_QUERY": strength_layout == "bhq",
        "STATS": stats,
        "PRECISION": "ieee",
        "PARTIALS": chosen.partials,
        "BLOCK_M": chosen.block_m,
        "BLOCK_N": chosen.block_n,
        "BLOCK_D": width,
        "BLOCK_DV": width,
        **dict.fromkeys(_UNIT_STRIDES, 1),
    }
    if eps:
        constexprs["WEIGHT_BITS"] = 15 if dtype == "fp16" else 0
    else:
        constexprs |= {"STEERED": steered, "BIAS_FIRST": dtype != "fp32", "SUM_BY_DOT": chosen.sums_by_dot}
    tensors = dict.fromkeys(("query_ptr", "key_ptr", "value_ptr"), _POINTERS[dtype])
    tensors |= {"bias_ptr": "*fp32", "strength_ptr": "*fp32", "lengths_ptr": "*i32", "out_ptr": _POINTERS[dtype]}
    tensors |= dict.fromkeys(("lse_ptr", "norm_ptr", "stats_ptr") if eps else ("lse_ptr", "stats_ptr"), "*fp32")
    strides = [stride for stride in _STRIDES if stride not in constexprs]
    signature = tensors | dict.fromkeys(strides, "i32") | {"scale": "fp32"}
    if eps:
        signature["eps"] = "fp32"
    signature |= dict.fromkeys(_SIZES, "i32")
    return Variant(
        kernel="prefill",
        arch=arch,
        head_dim=head_dim,
        dtype=dtype,
        is_causal=is_causal,
        eps=eps,
        stats=stats,
        strength_layout=strength_layout,
        function="rls_kernels.triton.floored:floored_kernel" if eps else "rls_kernels.triton.prefill:prefill_kernel",
        signature=signature,
        constexprs=constexprs,
        aligned=(*tensors, *strides),
        configuration=chosen,
    )


def shipped(arch: int) -> Iterator[Variant]:
    """The variants that are looked after on ``arch``: head dims 64 and 128, and what each option adds."""
    for head_dim in (64, 128):
        for dtype in ("bf16", "fp16"):
            for layout in ("none", "scalar", "h", "bhq"):
                yield prefill(arch, head_dim, dtype, strength_layout=layout)
            yield prefill(arch, head_dim, dtype, is_causal=True)
            yield prefill(arch, head_dim, dtype, eps=True)
            yield prefill(arch, head_dim, dtype, stats=True)
    yield prefill(arch, 256)
    yield prefill(arch, 64, "fp32")
