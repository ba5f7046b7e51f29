"""Every kernel as it ships: what a compiler without a GPU needs to make the very code that a launch would run."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rls_kernels.triton import configurations
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.operands import Figures, FigureStrides, Forward, Operands, Rows, RowStrides, Saved

_POINTERS = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
_ELEMENT_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
_ROW_STRIDES = {"stride_row_b": "i32", "stride_row_h": "i32"}
_SIZES = ("query_heads", "group_size", "query_length", "key_length")


@dataclass(frozen=True)
class Variant:
    """One kernel, specialised for one problem class on one architecture.

    ``function`` is ``"module:attribute"`` of the ``triton.jit`` function; ``signature`` maps each run-time argument to
    its Triton type or to a tuple of types and constants, ``constexprs`` the others to their values; ``aligned`` are the
    arguments that are multiples of 16 (bytes for pointers). ``products`` are the matrix products over a tile of scores,
    each ``head_dim`` multiply-adds a score. ``strength_layout`` is ``"none"`` for the same kernel unsteered. ``extra``
    are words for what else tells it from others.
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
    signature: Mapping[str, Any]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...]
    configuration: Configuration
    products: int
    extra: str = ""


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
    has_few_keys: bool = False,
    configuration: Configuration | None = None,
) -> Variant:
    """The prefill kernel for ``arch`` (90 for sm_90); D and Dv are ``head_dim``.

    With ``eps`` or ``stats`` that is the narrow kernel where there is one, or with ``wide`` the one that does the heads
    whose λb spans too much for it, which is called ``prefill-wide``. With ``has_few_keys`` there is no narrow one.
    """
    options: dict[str, Any] = {"is_causal": is_causal, "eps": eps, "stats": stats, "strength_layout": strength_layout}
    # λ by query and float32 have no narrow kernel.
    has_narrow = (eps or stats) and dtype != "fp32" and strength_layout != "bhq" and not has_few_keys
    narrowest = configurations.narrowest(dtype == "fp16", stats)
    if has_narrow and not wide:
        chosen = configuration or configurations.narrow(arch, head_dim, stats=stats)
        described, pointers = _descriptors(dtype, head_dim, chosen)
        column_dtype = "fp16" if stats else dtype
        outputs = {"forward": _forward(dtype), "columns_ptr": _POINTERS[column_dtype], "span_ptr": "*fp32"}
        return _variant(
            "prefill", "rls_kernels.triton.narrow:narrow_kernel", arch, head_dim, dtype, outputs,
            {**_ROW_STRIDES, "scale": "fp32", "eps": "fp32", "batches": "i32", **described},
            {**pointers, "HAS_EPS": eps, "STATS": stats, "NARROW": narrowest, "COLUMNS": configurations.columns(arch),
             "BIAS_EARLY": chosen.bias_early, "ROWS_ANEW": chosen.rows_anew, "MASKED_N": chosen.masked_n},
            chosen, 2, **options,
        )  # fmt: skip
    chosen = configuration or configurations.prefill(
        arch,
        head_dim,
        _ELEMENT_BYTES[dtype],
        exact_sums=stats,
        has_eps=eps,
        is_per_query=strength_layout == "bhq",
    )
    constexprs: dict[str, Any] = {
        "PER_QUERY": strength_layout == "bhq",
        "STATS": stats,
        "WIDER_THAN": narrowest if has_narrow else None,
        "PARTIALS": chosen.partials,
        "SUM_BY_DOT": chosen.sums_by_dot,
        "ROWS_ANEW": chosen.rows_anew,
        "MASKED_N": chosen.masked_n,
        "SLICE_D": chosen.slice_d,
    }
    outputs = {"forward": _forward(dtype), "span_ptr": "*fp32"}
    if eps:
        function = "rls_kernels.triton.floored:floored_kernel"
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
    return _variant(
        "prefill-wide" if wide else "prefill",
        function, arch, head_dim, dtype, outputs, numbers, constexprs, chosen, 2, **options,
    )  # fmt: skip


def columns(arch: int, dtype: str = "bf16") -> Variant:
    """The kernel that works out the narrow kernel's columns, which knows no head dim."""
    outputs = {"columns_ptr": _POINTERS[dtype], "span_ptr": "*fp32"}
    numbers = {"heads": "i32", "key_length": "i32"}
    constexprs = {"BLOCK_N": 1024, "COLUMNS": configurations.columns(arch)}
    return Variant(
        "columns", arch, 0, dtype, False, False, False, "scalar", "rls_kernels.triton.narrow:columns_kernel",
        {"operands": _operands(dtype), **outputs, **numbers}, constexprs, ("operands", *outputs),
        Configuration(0, 1024, 4, 2), 0,
    )  # fmt: skip


def decode(
    arch: int,
    head_dim: int,
    dtype: str = "bf16",
    *,
    is_causal: bool = False,
    eps: bool = False,
    stats: bool = False,
    strength_layout: str = "scalar",
    rows: int = 16,
    bias_per_head: bool = False,
) -> Variant:
    """The decode kernel for tiles of ``rows`` (queries × heads of a group)."""
    chosen = configurations.decode(arch, head_dim, _ELEMENT_BYTES[dtype], stats=stats, has_eps=eps)
    chosen = replace(chosen, block_m=min(rows, chosen.block_m))
    constexprs = {
        "STEERED": strength_layout != "none", "BIAS_PER_HEAD": bias_per_head, "HAS_EPS": eps, "STATS": stats,
        "SLICE_D": chosen.slice_d,
    }  # fmt: skip
    return _variant(
        "decode", "rls_kernels.triton.decode:decode_kernel", arch, head_dim, dtype, _partial(eps),
        {"scale": "fp32", "batches": "i32", "split_length": "i32"}, constexprs, chosen, 2,
        is_causal=is_causal, eps=eps, stats=stats, strength_layout=strength_layout,
    )  # fmt: skip


def reduction(
    arch: int, head_dim: int, dtype: str = "bf16", *, eps: bool = False, stats: bool = False, splits: int = 64
) -> Variant:
    """The kernel that joins decode's ``splits``."""
    outputs = {**_partial(eps), "forward": _forward(dtype)}
    numbers = {"eps": "fp32", "rows_total": "i32", "splits": "i32"}
    constexprs = {
        "VALUE_DIM": head_dim, "HAS_EPS": eps, "STATS": stats, "BLOCK_S": splits,
        "BLOCK_DV": configurations.block_width(head_dim),
    }  # fmt: skip
    return Variant(
        "reduce", arch, head_dim, dtype, False, eps, stats, "scalar", "rls_kernels.triton.decode:reduce_kernel",
        {**outputs, **numbers}, constexprs, tuple(outputs),
        Configuration(1, splits, configurations.reduction_warps(head_dim), 2), 0,
    )  # fmt: skip


def backward(
    arch: int,
    head_dim: int,
    dtype: str = "bf16",
    *,
    is_causal: bool = False,
    eps: bool = False,
    strength_layout: str = "scalar",
) -> list[Variant]:
    """The two backward kernels: gradients by query, and by key."""
    configured = configurations.backward(arch, head_dim, _ELEMENT_BYTES[dtype], has_eps=eps)
    saved = {"saved": Saved(_POINTERS[dtype], "*fp32", "*fp32", "*fp32", "*fp32")}
    by_query = {"query_gradient_ptr": _POINTERS[dtype], "strength_gradient_ptr": "*fp32"}
    by_key = dict.fromkeys(("key_gradient_ptr", "value_gradient_ptr"), _POINTERS[dtype]) | {
        "bias_gradient_ptr": "*fp32"
    }
    return [
        _variant(
            f"backward-{side}",
            f"rls_kernels.triton.backward:{side}_gradient_kernel",
            arch,
            head_dim,
            dtype,
            saved | written,
            {"scale": "fp32", "eps": "fp32"},
            {"PER_QUERY": strength_layout == "bhq", "HAS_EPS": eps, "SLICE_D": chosen.slice_d},
            chosen,
            products,
            is_causal=is_causal,
            eps=eps,
            strength_layout=strength_layout,
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
    for head_dim in (64, 128, 256):
        yield prefill(arch, head_dim, "fp32")
        yield decode(arch, head_dim, "fp32")


def launchable(arch: int, head_dims: Iterable[int] = (64, 128, 256)) -> Iterator[Variant]:
    """Every kernel that a launch on ``arch`` may compile for contiguous operands with lengths, D and Dv the same.

    Without lengths the kernels are the same but for one load. Decode's tiles are the smallest and the largest.
    """
    for dtype in _POINTERS:
        for head_dim in head_dims:
            for variant in _launchable(arch, head_dim, dtype):
                yield _with_lengths(variant) if "operands" in variant.signature else variant
    for dtype in ("bf16", "fp16"):
        yield _with_lengths(columns(arch, dtype))


def _launchable(arch: int, head_dim: int, dtype: str) -> Iterator[Variant]:
    for eps, stats in itertools.product((False, True), repeat=2):
        yield reduction(arch, head_dim, dtype, eps=eps, stats=stats)
    for is_causal, eps, stats in itertools.product((False, True), repeat=3):
        options: dict[str, Any] = {"is_causal": is_causal, "eps": eps, "stats": stats}
        forward = [prefill(arch, head_dim, dtype, strength_layout="bhq", **options)]
        forward.append(prefill(arch, head_dim, dtype, **options))
        if dtype != "fp32" and (eps or stats):
            forward.append(prefill(arch, head_dim, dtype, wide=True, **options))
        if dtype != "fp32" and stats:
            few = prefill(arch, head_dim, dtype, has_few_keys=True, **options)
            forward.append(replace(few, extra="few"))
        for variant in forward:
            yield variant
            if variant.signature.get("key_descriptor"):
                by_pointers = replace(variant.configuration, descriptors=False)
                yield replace(
                    prefill(
                        arch, head_dim, dtype, strength_layout=variant.strength_layout, configuration=by_pointers,
                        **options,
                    ),
                    extra="pointers",
                )  # fmt: skip
        for rows, bias_per_head in itertools.product((16, 64), (False, True)):
            decoded = decode(arch, head_dim, dtype, rows=rows, bias_per_head=bias_per_head, **options)
            yield replace(decoded, extra=f"rows[{rows}] b[{'hk' if bias_per_head else 'k'}]")
        if not stats:
            for layout in ("scalar", "bhq"):
                yield from backward(arch, head_dim, dtype, is_causal=is_causal, eps=eps, strength_layout=layout)


def _with_lengths(variant: Variant) -> Variant:
    given = variant.signature["operands"]._replace(lengths_ptr="*i32")
    return replace(
        variant, signature={**variant.signature, "operands": given}, extra=f"{variant.extra} lengths".strip()
    )


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
    outputs: Mapping[str, Any],
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
        signature={"operands": _operands(dtype)} | dict(outputs) | dict.fromkeys(_SIZES, "i32") | dict(numbers),
        constexprs={
            "HEAD_DIM": head_dim,
            "VALUE_DIM": head_dim,
            "CAUSAL": is_causal,
            "BLOCK_M": configuration.block_m,
            "BLOCK_N": configuration.block_n,
            "BLOCK_D": width,
            "BLOCK_DV": width,
            **constexprs,
        },
        aligned=("operands", *outputs),
        configuration=configuration,
        products=products,
    )


def _forward(dtype: str) -> Forward:
    return Forward(_POINTERS[dtype], "*fp32", "*fp32", "*fp32")


def _partial(eps: bool) -> dict[str, str | None]:
    """What decode leaves for its reduction; a second accumulator with eps alone."""
    return {"partial_out_ptr": "*fp32", "partial_weighted_ptr": "*fp32" if eps else None, "partial_rows_ptr": "*fp32"}


def _operands(dtype: str) -> Operands:
    """Types of the operands as a launch specialises on them: a stride of 1 becomes a constant."""
    figures = Figures("*fp32", FigureStrides("i32", "i32", 1))
    rows = Rows(_POINTERS[dtype], RowStrides("i32", "i32", "i32", 1))
    return Operands(
        query=rows,
        key=rows,
        value=rows,
        bias=figures,
        strength=figures,
        lengths_ptr=None,
    )
