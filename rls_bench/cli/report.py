"""``rls-bench report FILE… --html OUT``: one self-contained page, or its figures in other forms."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rls_bench.cli import documents, outputs


class Format(str, Enum):
    """Forms beside the page."""

    png = "png"
    csv = "csv"
    parquet = "parquet"
    markdown = "markdown"


def report(
    files: Annotated[list[Path], typer.Argument(help="Results files, stores or fleet folders.")],
    page: Annotated[Path | None, typer.Option("--html", help="Write one page that needs no network here.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="png, csv, parquet or markdown, to --out.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A file, for png a folder; csv and markdown print where none is given.")
    ] = None,
) -> None:
    """Report on results: the verdict first, then plots with their tables, then everything that isn't ok."""
    if page is None and form is None:
        raise typer.BadParameter("wanted --html OUT, or --format png|csv|parquet|markdown")
    if form in (Format.png, Format.parquet) and out is None:
        raise typer.BadParameter(f"--format {form.value} wanted --out, a {'folder' if form is Format.png else 'file'}")
    outputs.check_file(page, "--html")
    (outputs.check_folder if form is Format.png else outputs.check_file)(out, "--out")
    from rls_bench import report as reports
    from rls_bench.errors import RlsBenchError
    from rls_bench.records.escape import one_line

    results = reports.read(files)
    try:
        if page is not None:
            _write(page, reports.html(results))
            if reports.undrawable():
                typer.echo(f"{page.name}: {reports.undrawable()}", err=True)
        if form is Format.png and out is not None:
            typer.echo("\n".join(map(str, reports.write_pngs(results, out))))
        elif form is Format.parquet and out is not None:
            reports.write_parquet(results, out)
        elif form is Format.csv:
            reports.write_csv(results, out or sys.stdout)
        elif form is Format.markdown and out is not None:
            _write(out, reports.markdown(results))
        elif form is Format.markdown:
            documents.write(reports.markdown(results))
    except OSError as error:
        where = error.filename or out or page or "standard output"
        raise RlsBenchError(f"report: {where} cannot be written ({error.strerror})") from error
    for bad in results.skipped:
        typer.echo(one_line(f"left out {bad.path}:{bad.line}: {bad.reason}"), err=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
