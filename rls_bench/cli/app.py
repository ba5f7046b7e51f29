"""The command line: one small module a command, each importing what it needs when it runs, so that help is quick."""

from __future__ import annotations

import typer

from rls_bench.cli import choose, compare, conformance, doctor, evaluate, inspect, profile, report, run, show, sweep
from rls_bench.cli import list as listing
from rls_bench.cli.main import main

__all__ = ["app", "main"]

app = typer.Typer(
    name="rls-bench",
    help="Which steered-attention kernel is correct, how fast is it here, and which one to run in production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options() -> None:
    """Common to every command; there is nothing to set yet."""


app.command("run")(run.run)
app.command("list")(listing.list_backends)
app.command("show")(show.show)
app.command("doctor")(doctor.doctor)
app.command("choose")(choose.choose)
app.command("compare")(compare.compare)
app.command("conformance")(conformance.conformance)
app.command("evaluate")(evaluate.evaluate)
app.command("inspect")(inspect.inspect)
app.command("profile")(profile.profile)
app.command("report")(report.report)
app.command("sweep")(sweep.sweep)
