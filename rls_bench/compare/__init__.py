"""Two results files in, one verdict a cell out: which backend became slower on which problem, and how sure that is."""

from rls_bench.compare.sources import Source, load
from rls_bench.compare.verdict import Comparison, Row, Verdict, compare

__all__ = ["Comparison", "Row", "Source", "Verdict", "compare", "load"]
