"""Named lists of problems: the shapes of real models, and small ones that answer in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rls_bench.problems.problem import DType, Problem


def names() -> list[str]:
    """Names of every suite."""
    return sorted(_SUITES)


def default(device: str, cpu_isa: Sequence[str] = ()) -> str:
    """The suite that ``rls-bench run`` takes where none is named; ``cpu_isa`` as ``host.current()`` spells it.

    A CPU gets the dtype that it computes in: where it has no bfloat16 products, torch's take ten times as long.
    """
    if device == "cuda":
        return "standard"
    return "laptop-bf16" if {"avx512_bf16", "amx_bf16"} & set(cpu_isa) else "laptop"


def get(name: str, device: str = "cpu", **changes: Any) -> list[Problem]:
    """The problems of suite ``name`` on ``device``, with ``changes`` to their fields (dtype, inputs, …).

    Raises ValueError for a name that is no suite.
    """
    if name not in _SUITES:
        raise ValueError(f"suite: wanted one of {', '.join(names())}; got {name!r}")
    return [replace(problem, device=device, **changes) for problem in _SUITES[name]()]


def _attention(name: str, heads: str, length: int | tuple[int, int], head_dim: int, **options: Any) -> Problem:
    """``heads`` is "Hq/Hkv"; ``length`` is L or (Lq, Lk)."""
    query_heads, kv_heads = (int(count) for count in heads.split("/"))
    query_length, key_length = (length, length) if isinstance(length, int) else length
    return Problem(
        batch=options.pop("batch", 1),
        query_heads=query_heads,
        kv_heads=kv_heads,
        query_length=query_length,
        key_length=key_length,
        head_dim=head_dim,
        value_dim=options.pop("value_dim", head_dim),
        name=name,
        **options,
    )


def smoke() -> list[Problem]:
    """Small and awkward: every option once, in seconds."""
    return [
        _attention("plain", "4/4", 63, 64),
        _attention("grouped, causal", "6/2", (63, 111), 32, dtype="bfloat16", is_causal=True),
        _attention("padded", "4/4", 63, 64, batch=2, has_key_lengths=True),
        _attention("exact eps", "4/4", 63, 64, eps=1e-3),
        _attention("per-query λ", "4/4", 63, 64, strength_layout="bhq"),
        _attention("statistics", "4/4", 63, 64, return_stats=True),
    ]


def published() -> list[Problem]:
    """The shape of the published experiment, in the dtypes of a CPU and of a GPU."""
    return [
        _attention("published", "32/32", 1024, 128),
        _attention("published", "32/32", 1024, 128, dtype="bfloat16"),
    ]


def laptop(dtype: DType = "float32") -> list[Problem]:
    """What two CPU cores answer in two minutes: the published shape, a small model's prefill, a decode."""
    return [
        _attention("published", "32/32", 1024, 128, dtype=dtype),
        _attention("SmolLM2 prefill", "9/3", 1024, 64, dtype=dtype, is_causal=True),
        # A cache of keys is kept in half precision everywhere, and reading it is what a decode step takes.
        _attention("Llama-3-8B decode", "32/8", (1, 4096), 128, dtype="bfloat16"),
    ]


def standard() -> list[Problem]:
    """Prefill and decode of real models."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    prefill = {**half, "is_causal": True}
    return [
        _attention("SmolLM2 prefill", "9/3", 1024, 64, **prefill),
        _attention("SmolLM2 prefill", "9/3", 2048, 64, **prefill),
        _attention("Llama-3-8B prefill", "32/8", 2048, 128, **prefill),
        _attention("Llama-3-8B prefill", "32/8", 4096, 128, **prefill),
        # 256, 1024 and 2048 image tokens before 256 of text.
        *(_attention(f"Qwen2-VL-7B, {n} image tokens", "28/4", n + 256, 128, **prefill) for n in (256, 1024, 2048)),
        *(_attention("Llama-3-8B decode", "32/8", (1, n), 128, **half) for n in (2048, 8192, 32768)),
        *(_attention("Qwen2-VL-7B decode", "28/4", (1, n), 128, **half) for n in (2048, 32768)),
        _attention("Llama-3-8B, exact eps", "32/8", 2048, 128, eps=1e-9, **prefill),
        _attention("Llama-3-8B, grounding heads", "32/8", 2048, 128, strength_layout="h", **prefill),
    ]


def long() -> list[Problem]:
    """Long contexts, where a matrix of scores no longer fits."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    return [
        *(_attention("long prefill", "8/8", n, 64, is_causal=True, **half) for n in (8192, 16384, 32768)),
        *(_attention("long decode", "32/8", (1, n), 128, **half) for n in (65536, 131072)),
    ]


_SUITES: dict[str, Callable[[], list[Problem]]] = {
    "smoke": smoke,
    "published": published,
    "laptop": laptop,
    "laptop-bf16": lambda: laptop("bfloat16"),
    "standard": standard,
    "long": long,
}
