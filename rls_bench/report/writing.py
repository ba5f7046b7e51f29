"""The same figures in other forms: PNG, CSV, Parquet and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from rls_bench.errors import RlsBenchError
from rls_bench.records import escape
from rls_bench.report.results import Results
from rls_bench.report.sections import sections
from rls_bench.report.tables import Table

# Markdown is read by people, and pasted; the long tables stay in CSV.
MOST_MARKDOWN_ROWS = 60


def write_pngs(results: Results, folder: Path) -> list[Path]:
    """One PNG for each plot, on white, into ``folder``; the paths written.

    Raises ImportError where seaborn or matplotlib cannot be imported.
    """
    from rls_bench.report import figures

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with figures.style():
        for part in sections(results):
            if part.draw is not None:
                figure = part.draw()
                figure.suptitle(part.title)
                path = folder / f"{part.name}.png"
                figure.savefig(path, dpi=144, facecolor="white")
                written.append(path)
    return written


def write_csv(results: Results, path: Path | TextIO) -> None:
    """Every row of the frame; times in nanoseconds. No spreadsheet takes a cell for a formula."""
    words = results.frame.select_dtypes(exclude="number").columns
    frame = results.frame.assign(**{name: results.frame[name].map(_cell) for name in words})
    frame.to_csv(path, index=False)


def write_parquet(results: Results, path: Path) -> None:
    """As CSV. Raises RlsBenchError where pyarrow is missing."""
    try:
        results.frame.to_parquet(path, index=False, engine="pyarrow")
    except ImportError as error:
        raise RlsBenchError("Parquet needs pyarrow: pip install 'rls-bench[report]'") from error


def markdown(results: Results) -> str:
    """The page's words and tables, each table cut at MOST_MARKDOWN_ROWS."""
    lines = ["# rls_bench report", ""]
    for part in sections(results):
        lines += [f"## {part.title}", ""]
        lines += [escape.markdown(part.lead), ""] if part.lead else []
        for table in part.tables:
            lines += [*_table(table), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    shown = table.rows[:MOST_MARKDOWN_ROWS]
    marks = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [_row(table.headings), _row(marks), *(_row([escape.markdown(word) for word in row]) for row in shown)]
    hidden = len(table.rows) + table.left_out - len(shown)
    return [*lines, "", f"and {hidden:,} more rows: `--format csv` has them all"] if hidden else lines


def _row(words: list[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _cell(value: object) -> object:
    return escape.csv_cell(value) if isinstance(value, str) else value
