"""What a store needs beside the package itself: DuckDB and pyarrow, imported where one is opened."""

from __future__ import annotations

from typing import Any

from rls_bench.errors import MissingPackage


def duckdb() -> Any:
    """The module. Raises MissingPackage."""
    try:
        import duckdb
    except ImportError as error:
        raise _missing() from error
    return duckdb


def arrow() -> Any:
    """pyarrow, with its parquet. Raises MissingPackage."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise _missing() from error
    return pyarrow


def _missing() -> MissingPackage:
    return MissingPackage("a store needs DuckDB and pyarrow: pip install 'rls-bench[store]'")
