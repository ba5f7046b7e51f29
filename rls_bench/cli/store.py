"""``rls-bench store``: many records in Parquet, taken in from results files, asked in SQL, given back as they came."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rls_bench.cli import documents, outputs

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_STORE = Path("results/store")
# More rows than a person reads; the other forms have all.
_MOST_ROWS = 200


class Format(str, Enum):
    """How an answer is written."""

    table = "table"
    csv = "csv"
    json = "json"


@app.callback()
def store() -> None:
    """Millions of records, by machine and month. Needs the extra ``store``. JSON lines stay what is true.

    Wherever a command takes a results file it takes a store, too, or a part of one: "results/store::commit like 'ab%'".
    """


@app.command("import")
def take_in(
    files: Annotated[list[Path], typer.Argument(help="Results files.")],
    folder: Annotated[Path, typer.Option("--store", help="The store's folder.")] = _STORE,
) -> None:
    """Take records in; those that are there already count once."""
    outputs.check_folder(folder, "--store")
    from rls_bench.cli.console import Console
    from rls_bench.records.escape import one_line
    from rls_bench.records.store import importing

    console = Console()
    with Console(stderr=True).status("reading") as status:
        done = importing.take_in(folder, files, lambda count: status.update(f"{count:,} lines read"))
    known = f", {done.known:,} were there already" if done.known else ""
    console.print(f"{folder}: {done.added:,} records taken in{known}", soft_wrap=True)
    for bad in done.skipped:
        typer.echo(one_line(f"left out {bad.path}:{bad.line}: {bad.reason}"), err=True)


@app.command("query")
def query(
    sql: Annotated[str, typer.Argument(help='SQL over the view records: "select label, min(warm_ns) from records …".')],
    folder: Annotated[Path, typer.Option("--store", help="The store's folder.")] = _STORE,
    form: Annotated[Format, typer.Option("--format", help="table, csv or json (an object a line).")] = Format.table,
) -> None:
    """Ask in DuckDB's SQL. ``describe records`` lists the columns; times are in nanoseconds."""
    from rls_bench.records.store import reading

    answer = reading.query(folder, sql)
    if form is Format.csv:
        import csv

        from rls_bench.records.escape import csv_cell

        writer = csv.writer(sys.stdout)
        writer.writerow(answer.columns)
        writer.writerows([csv_cell(value) if isinstance(value, str) else value for value in row] for row in answer.rows)
    elif form is Format.json:
        import msgspec

        for row in answer.rows:
            documents.write_json(msgspec.json.encode(dict(zip(answer.columns, row, strict=True))).decode())
    else:
        from rich.table import Table

        from rls_bench.cli.console import Console
        from rls_bench.records.escape import text

        table = Table(*answer.columns, box=None, pad_edge=False)
        for row in answer.rows[:_MOST_ROWS]:
            table.add_row(*("" if value is None else text(str(value)) for value in row))
        Console().print(table)
        if (hidden := len(answer.rows) - _MOST_ROWS) > 0:
            Console().print(f"and {hidden:,} more rows: --format csv has them all")


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="Results file to write.")],
    folder: Annotated[Path, typer.Option("--store", help="The store's folder.")] = _STORE,
    where: Annotated[str, typer.Option(help="A condition of SQL: \"backend = 'triton'\". All by default.")] = "",
) -> None:
    """Give records back as the lines that they came as."""
    outputs.check_file(out, "--out")
    from rls_bench.cli.console import Console
    from rls_bench.records.store import reading

    count, part = 0, out.with_name(out.name + ".part")
    with part.open("wb") as file:
        for line in reading.lines(reading.Place(folder, where)):
            file.write(line + b"\n")
            count += 1
    part.replace(out)
    Console().print(f"{out}: {count:,} records", soft_wrap=True)
