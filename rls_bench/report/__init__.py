"""Records in, a report out: one self-contained page, or figures, CSV, Parquet and Markdown of the same figures."""

from rls_bench.report.page import html, undrawable
from rls_bench.report.results import Results, read
from rls_bench.report.writing import markdown, write_csv, write_parquet, write_pngs

__all__ = ["Results", "html", "markdown", "read", "undrawable", "write_csv", "write_parquet", "write_pngs"]
