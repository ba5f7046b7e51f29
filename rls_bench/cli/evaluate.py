"""``rls-bench evaluate``: what steering buys in accuracy."""

from __future__ import annotations

import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rls_bench.cli import outputs

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table


class Task(str, Enum):
    """What can be evaluated."""

    digits = "digits"
    conflict = "conflict"


def evaluate(
    task: Annotated[
        Task, typer.Argument(help="digits: find a cell and read it; conflict: believe one of two speakers.")
    ],
    items: Annotated[
        int | None, typer.Option(min=2, help="Questions of each set and training (digits) or in all (conflict).")
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend of the steered attention; auto asks the policy.")] = "auto",
    draw: Annotated[
        int, typer.Option(min=0, help="Which draw of the digits task's test grids; what is picked stays as it is.")
    ] = 0,
    out: Annotated[Path, typer.Option(help="Folder for TASK.csv, TASK.png and TASK.md.")] = Path("results/evaluate"),
    document: Annotated[
        Path | None, typer.Option(help="A Markdown file whose section on this task is to be renewed.")
    ] = None,
) -> None:
    """Measure accuracy with and without steering, with its controls; write a table, a figure and a section."""
    from rls_bench.cli.console import Console
    from rls_bench.evaluation.evaluation import Run

    console, errors = Console(), Console(stderr=True)
    outputs.check_folder(out, "--out")
    outputs.check_file(document, "--document")
    start = time.perf_counter()

    def log(message: str) -> None:
        errors.print(f"{time.perf_counter() - start:5.0f} s  {message}")

    if task is Task.digits:
        from rls_bench.evaluation.digits import task as digits

        evaluation = digits.evaluate(items=items or digits.ITEMS, backend=backend, draw=draw, log=log)
    else:
        if draw:
            raise typer.BadParameter(f"wanted 0, since conflict draws no grids; got {draw}", param_hint="--draw")
        from rls_bench.evaluation.conflict import task as conflict

        evaluation = conflict.evaluate(items=items or conflict.ITEMS, backend=backend, log=log)
    run = Run(" ".join(["rls-bench", *sys.argv[1:]]), time.perf_counter() - start, time.process_time())
    for caption, table in {**evaluation.tables, evaluation.title: evaluation.bar_table}.items():
        console.print(_table(caption, table))
    for path in evaluation.write(out, run, document):
        console.print(str(path))
    console.print(str(run))


def _table(caption: str, frame: DataFrame) -> Table:
    from rich.table import Table

    table = Table(*map(str, frame.columns), title=caption, title_justify="left")
    for row in frame.astype(str).to_numpy().tolist():
        table.add_row(*row)
    return table
