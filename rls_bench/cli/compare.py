"""``rls-bench compare BASE NEW``: did anything get slower, with an exit code that tells slower from ambiguous."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rls_bench.cli import documents, next_step

if TYPE_CHECKING:
    from rls_bench.compare import Comparison


class Format(str, Enum):
    """How the verdict is written."""

    text = "text"
    json = "json"
    markdown = "markdown"
    github = "github"


def share(value: str) -> float:
    """``3%`` or ``0.03`` as 0.03."""
    try:
        number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        number = float("nan")
    if not 0 < number < 1:
        raise typer.BadParameter(f"wanted a share such as 3% or 0.03; got {value!r}")
    return number


def compare(
    base: Annotated[Path, typer.Argument(help="Results file, store or fleet folder to compare with.")],
    new: Annotated[Path, typer.Argument(help="Results file, store or fleet folder to judge.")],
    threshold: Annotated[str, typer.Option(help="Differences up to this share count as the same: 3% or 0.03.")] = "3%",
    output: Annotated[
        Format, typer.Option("--format", help="text, json, markdown, or github (annotations).")
    ] = Format.text,
    strict: Annotated[
        bool, typer.Option(help="Call a cell slower or faster only where it is by more than the threshold for certain.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    across_machines: Annotated[
        bool, typer.Option(help="Compare even if the two come from different machines.")
    ] = False,
    may_go: Annotated[
        list[str] | None, typer.Option(help="A backend whose cells NEW may lack; repeat for several.")
    ] = None,
) -> None:
    """Judge each cell of NEW against BASE.

    Exit codes: 0 none slower, 1 slower or broken, 3 ambiguous only, 4 cells are gone, 2 usage.
    """
    margin = share(threshold)
    output = Format.json if json else output
    from rls_bench.compare import compare as judge
    from rls_bench.compare import load

    sides = (load(path, across_machines=across_machines) for path in (base, new))
    comparison = judge(*sides, threshold=margin, across_machines=across_machines, strict=strict, may_go=may_go or ())
    write(
        comparison, output, next_step.after_comparison(comparison, ("rls-bench", "run", "--out", str(new)), (base, new))
    )
    raise typer.Exit(comparison.exit_code)


def write(comparison: Comparison, output: Format, following: str) -> None:
    """Print ``comparison`` in the form asked for and, for people, the command that is ``following``."""
    from rls_bench.compare import render
    from rls_bench.records import escape

    as_markdown = f"\nNext: {escape.markdown(following)}\n"
    if output is Format.text:
        from rls_bench.cli.console import Console

        console = Console()
        console.print(render.text(comparison))
        console.print(f"next: {following}", soft_wrap=True)
    elif output is Format.json:
        documents.write_json(render.as_json(comparison))
    elif output is Format.markdown:
        documents.write(render.markdown(comparison) + as_markdown)
    else:
        _write_github(render.annotations(comparison), render.markdown(comparison) + as_markdown)


def _write_github(commands: str, summary: str) -> None:
    """Annotations go to standard output, where the runner reads them; the table to the job's summary file."""
    import os

    documents.write(commands)
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        documents.write(summary)
        return
    with Path(target).open("a", encoding="utf-8") as file:
        file.write(summary)
