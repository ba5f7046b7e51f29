"""From records to a decision: which backend to run in production, for each regime of each machine, and how sure."""

from rls_bench.choose.decision import Decision, decide
from rls_bench.choose.evidence import Cell, Evidence, Limits, gather
from rls_bench.choose.regimes import choose
from rls_bench.choose.traffic import Total, Traffic, on, totals
from rls_bench.choose.writing import as_policy

__all__ = [
    "Cell",
    "Decision",
    "Evidence",
    "Limits",
    "Total",
    "Traffic",
    "as_policy",
    "choose",
    "decide",
    "gather",
    "on",
    "totals",
]
