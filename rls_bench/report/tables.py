"""Tables as words: rounded, bounded in length, with a colour beside each backend's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

# A browser takes long over more rows than this; CSV and Parquet have them all.
MOST_ROWS = 4000


@dataclass(frozen=True)
class Column:
    """Where a column's values come from, its heading, a factor for its unit, and whether it names backends."""

    source: str
    heading: str
    scale: float = 1.0
    swatch: bool = False


@dataclass(frozen=True)
class Table:
    """Words only. ``numeric`` marks columns that are set flush right, ``swatch`` the one that names backends."""

    title: str
    headings: list[str]
    rows: list[tuple[str, ...]]
    numeric: list[bool]
    swatch: int | None
    left_out: int


def table(frame: pd.DataFrame, columns: Sequence[Column], title: str) -> Table:
    """The first MOST_ROWS rows of ``frame`` as words; columns that say nothing are dropped."""
    shown = frame.head(MOST_ROWS)
    kept = [column for column in columns if not _says_nothing(shown, column)]
    numeric = [pd.api.types.is_numeric_dtype(shown[column.source]) for column in kept]
    words = [
        _numbers(shown[column.source] * column.scale) if is_number else shown[column.source].astype(str).tolist()
        for column, is_number in zip(kept, numeric, strict=True)
    ]
    return Table(
        title=title,
        headings=[column.heading for column in kept],
        rows=list(zip(*words, strict=True)),
        numeric=numeric,
        swatch=next((index for index, column in enumerate(kept) if column.swatch), None),
        left_out=len(frame) - len(shown),
    )


def _says_nothing(frame: pd.DataFrame, column: Column) -> bool:
    values = frame[column.source]
    if column.source == "machine" and len(frame) > 1:
        return values.nunique() < 2
    return bool(values.isna().all() or (values.astype(str) == "").all())


def _numbers(values: pd.Series) -> list[str]:
    """Four significant digits, and no exponent that a reader must undo."""
    return ["" if pd.isna(value) else _number(float(value)) for value in values]


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.4g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.2e}"
