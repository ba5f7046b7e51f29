"""Figures to track from commit to commit on a machine without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from rls_bench.inspector.cache import Cache
from rls_bench.inspector.workers import inspect_all


def instructions_per_score(
    archs: Sequence[str] = ("sm_80", "sm_90", "sm_100", "sm_120"),
    head_dims: Sequence[int] = (64, 128),
    workers: int | None = None,
    cache: Cache | None = None,
) -> dict[tuple[str, int, str], float]:
    """Instructions a score of prefill's hot loop (bf16, not causal) by (arch, head_dim, strength layout).

    The layout is ``"none"`` (unsteered), ``"scalar"`` or ``"bhq"``. A kernel that doesn't compile counts as NaN.
    """
    from rls_bench.inspector import cases

    layouts = ("none", "scalar", "bhq")
    wanted = [
        case
        for case in cases.shipped(archs)
        if case.variant.kernel == "prefill"
        and case.variant.dtype == "bf16"
        and case.variant.head_dim in head_dims
        and case.variant.strength_layout in layouts
        and not (case.variant.is_causal or case.variant.eps or case.variant.stats)
    ]
    return {
        (found.arch, found.variant.head_dim, found.variant.strength_layout): (
            found.hot.instructions if found.hot else float("nan")
        )
        for found in inspect_all(wanted, workers, cache)
    }
