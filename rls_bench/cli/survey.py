"""``rls-bench survey``: everything worth knowing about this machine, in a given time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rls_bench.survey.stages import Stage


def survey(
    minutes: Annotated[float, typer.Option(help="Time for all of it, from the program's start.", min=0.5)] = 8.0,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="What to look at; a GPU where there is one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; a second survey into it goes on.")] = Path("survey"),
    bundle: Annotated[
        Path | None, typer.Option(help="Run nothing: pack into DIR what a machine without a network needs.")
    ] = None,
) -> None:
    """Look at this machine, most valuable first: who is right, who wins, and what it costs, on one page.

    Each stage is a process of its own with a deadline; one that fails or hangs costs itself alone, and all results are
    on disk after each. Exit codes: 0 every stage ended well or cannot run here, 1 some did not, 2 cannot run.
    """
    if bundle is not None:
        from rls_bench.survey import bundle as bundles

        typer.echo(bundles.pack(bundle))
        return
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.machines import host
    from rls_bench.runner import kin
    from rls_bench.survey import conductor, page

    console = Console()

    def tell(stage: Stage, status: str, reason: str, seconds: float) -> None:
        console.print(f"{stage.name:12} {status:9} {seconds:5.0f} s  {reason or stage.about}", soft_wrap=True)

    try:
        ended = conductor.survey(out, device or host.device(), minutes, tell, kin.started(os.getpid()))
    finally:
        if (out / "stages.jsonl").exists():
            (out / "survey.md").write_text(page.markdown(out), encoding="utf-8")
    shown = Table()
    for title in page.TITLES:
        shown.add_column(title)
    for line in page.table(out):
        shown.add_row(*page.cells(line))
    console.print(shown)
    for fault in page.faults(out)[:10]:
        console.print(f"went wrong: {fault}", style="yellow", soft_wrap=True)
    console.print(f"the page: {out / 'survey.md'}", soft_wrap=True)
    if any(row["status"] not in conductor.DONE for row in ended):
        raise typer.Exit(1)
