"""Cases that take a GPU's kernels through every branch of their launchers, which the small ones of conformance don't.

Blocks of a half-precision kernel hold 64 keys and more, so main loops turn only over several hundred; kernels for eps
and statistics come in pairs that a λb's span decides between; decoding splits its keys over programs. Each dtype and
head dim is compiled to kernels of its own, so that they come in groups, the most used first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rls_bench.problems.problem import DType, Problem

# dtype and head dim of each group, the most used first.
_GROUPS: dict[str, tuple[DType, int]] = {
    "bf16 D128": ("bfloat16", 128),
    "bf16 D64": ("bfloat16", 64),
    "fp16 D128": ("float16", 128),
    "fp32 D64": ("float32", 64),
    "fp16 D64": ("float16", 64),
    "fp32 D128": ("float32", 128),
}
# Not a multiple of any block, and more than four blocks of 64.
_QUERIES = 300
# Long enough that every split of a decode has several blocks, and the last one a part.
_CACHE = 4097


def groups() -> list[str]:
    """Names of the groups, the most telling first."""
    return [*_GROUPS, "wide heads", "gradients"]


def cases(device: str = "cuda", only: str = "") -> list[Problem]:
    """All cases on ``device``, or those of one group; each is named by its group and what it is about."""
    names = [only] if only else groups()
    return [replace(case, device=device) for name in names for case in _group(name)]


def _group(name: str) -> Iterator[Problem]:
    if name == "wide heads":
        found = _wide()
    elif name == "gradients":
        found = _gradients()
    else:
        found = _forward(*_GROUPS[name])
    for case in found:
        yield replace(case, name=f"{name}: {case.name}")


def _case(name: str, dtype: DType, dim: int, queries: int, keys: int = 0, **options: Any) -> Problem:
    shape = {"batch": 1, "query_heads": 4, "kv_heads": 2, "value_dim": dim, "inputs": "random", **options}
    return Problem(query_length=queries, key_length=keys or queries, head_dim=dim, dtype=dtype, name=name, **shape)


def _forward(dtype: DType, dim: int) -> Iterator[Problem]:
    def prefill(name: str, queries: int = _QUERIES, keys: int = 0, **options: Any) -> Problem:
        return _case(name, dtype, dim, queries, keys, **options)

    padded_causal: dict[str, Any] = {"batch": 2, "is_causal": True, "has_key_lengths": True}
    yield prefill("plain")
    yield prefill("real inputs, causal", 513, is_causal=True, inputs="real")
    yield prefill("causal over a cache", 100, 700, is_causal=True)
    yield prefill("causal, queries without a key", _QUERIES, 130, is_causal=True)
    yield prefill("whole blocks alone", 256, 512)
    yield prefill("padded", batch=2, has_key_lengths=True)
    yield prefill("causal and padded", **padded_causal)
    yield prefill("bias per head", kv_heads=4, bias_layout="bhk")
    yield prefill("strength per head, causal", strength_layout="h", is_causal=True)
    yield prefill("strength per query, causal", strength_layout="bhq", is_causal=True)
    yield prefill("seven queries a key head", query_heads=7, kv_heads=1, is_causal=True)
    yield prefill("values of another width", value_dim=40)
    yield prefill("eps", eps=1e-3)
    # λb spans more powers of two than the narrow kernels take: their wide substitutes do the work.
    yield prefill("eps, wide", eps=1e-3, strength=30.0)
    yield prefill("eps, causal and padded", eps=1e-3, **padded_causal)
    yield prefill("eps, strength per query", eps=1e-3, strength_layout="bhq")
    yield prefill("statistics", return_stats=True)
    yield prefill("statistics, wide, causal", return_stats=True, strength=30.0, is_causal=True)
    yield prefill("statistics, causal and padded", return_stats=True, **padded_causal)
    yield prefill("statistics, strength per query", return_stats=True, strength_layout="bhq")
    yield prefill("statistics of few keys", 100, 130, return_stats=True)
    yield prefill("eps and statistics, causal", eps=1e-3, return_stats=True, is_causal=True)
    yield prefill("decode", 1, _CACHE, batch=2)
    yield prefill("decode, eps", 1, _CACHE, batch=2, eps=1e-3)
    yield prefill("decode, statistics", 1, _CACHE, batch=2, return_stats=True)
    yield prefill("decode, eps and statistics", 1, _CACHE, batch=2, eps=1e-3, return_stats=True)
    yield prefill("decode, padded", 1, _CACHE, batch=2, has_key_lengths=True)
    yield prefill("decode, bias per head", 1, _CACHE, kv_heads=4, bias_layout="bhk")
    yield prefill("seven new queries, causal", 7, _CACHE, is_causal=True)
    yield prefill("new queries, strength per query", 3, _CACHE, query_heads=8, kv_heads=1, strength_layout="bhq")


def _wide() -> Iterator[Problem]:
    dtypes: tuple[DType, ...] = ("bfloat16", "float32")
    for dtype in dtypes:
        yield _case(f"{dtype} D256", dtype, 256, _QUERIES)
        yield _case(f"{dtype} D256, eps, causal", dtype, 256, _QUERIES, eps=1e-3, is_causal=True)
        yield _case(f"{dtype} D256, decode", dtype, 256, 1, _CACHE)
        # A width that is no power of two.
        yield _case(f"{dtype} D96, causal", dtype, 96, _QUERIES, is_causal=True)


def _gradients() -> Iterator[Problem]:
    dtypes: tuple[DType, ...] = ("bfloat16", "float32")
    options: dict[str, dict[str, Any]] = {
        "causal": {"is_causal": True},
        "eps": {"eps": 1e-3},
        "padded, strength per query": {"strength_layout": "bhq", "has_key_lengths": True, "batch": 2},
    }
    for dtype in dtypes:
        for dim in (64, 128):
            for name, chosen in options.items():
                yield _case(f"{dtype} D{dim}, {name}", dtype, dim, 200, requires_grad=True, **chosen)
