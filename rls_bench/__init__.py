"""Steered attention behind one interface, and the evidence for which backend to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rls_bench.attention import explain, plan, steered_attention
    from rls_bench.backends.interface import AttentionStats
    from rls_bench.planning.plan import Plan
    from rls_bench.traffic.recording import record_workload

__all__ = ["AttentionStats", "Plan", "explain", "plan", "record_workload", "steered_attention"]

_HOME = {
    "AttentionStats": "rls_bench.backends.interface",
    "Plan": "rls_bench.planning.plan",
    "explain": "rls_bench.attention",
    "plan": "rls_bench.attention",
    "record_workload": "rls_bench.traffic.recording",
    "steered_attention": "rls_bench.attention",
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: the command line's help must not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module 'rls_bench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
