"""The command line: one small module a command, each importing what it needs when it runs, so that help is quick."""

from __future__ import annotations

from collections.abc import Callable

import typer

from rls_bench.cli import (
    ab,
    bisect,
    choose,
    compare,
    conformance,
    doctor,
    evaluate,
    fleet,
    inspect,
    policy,
    profile,
    report,
    run,
    show,
    store,
    suites,
    survey,
    sweep,
    workload,
)
from rls_bench.cli import list as listing
from rls_bench.cli.grouped_help import GroupedHelp
from rls_bench.cli.main import main

__all__ = ["COMMANDS", "app", "main"]

app = typer.Typer(
    name="rls-bench",
    cls=GroupedHelp,
    help="Which steered-attention kernel is correct, how fast is it here, and which one to run in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options() -> None:
    """Common to every command; there is nothing to set yet."""


# Grouped by what their users come for, in the order in which they need them; no line is cut at 80 columns.
COMMANDS: dict[str, list[tuple[str, Callable[..., None], str]]] = {
    "Measure": [
        ("run", run.run, "Every backend on a suite: agreement, then time."),
        ("conformance", conformance.conformance, "The cases that every backend must get right."),
        ("profile", profile.profile, "Probes on one call, or an Nsight report read."),
        ("survey", survey.survey, "A new machine in minutes: all of it, on one page."),
    ],
    "Decide": [
        ("compare", compare.compare, "Did a commit slow anything, as an exit code."),
        ("ab", ab.ab, "The same, of two commits measured at once."),
        ("bisect", bisect.bisect, "Which commit or package version made it slow."),
        ("choose", choose.choose, "Which backend to run; writes the policy of auto."),
        ("policy", policy.policy, "Does the policy cover new traffic; what to measure."),
        ("report", report.report, "The evidence on one page."),
    ],
    "Look inside": [
        ("list", listing.list_backends, "The backends, and why one is missing."),
        ("doctor", doctor.doctor, "This machine, and what to install."),
        ("workload", workload.workload, "What was asked of you, and what stands for it."),
        ("suites", suites.list_suites, "The workloads that come along, in words."),
        ("show", show.show, "The tables of a recorded run again."),
        ("inspect", inspect.inspect, "What the Triton kernels compile to; needs no GPU."),
    ],
    "Steer": [
        ("sweep", sweep.sweep, "The trade-off of λ: entropy against KL."),
        ("evaluate", evaluate.evaluate, "Accuracy with and without steering."),
    ],
}
for panel, commands in COMMANDS.items():
    for name, function, line in commands:
        app.command(name, short_help=line, rich_help_panel=panel)(function)
# Commands with commands of their own.
app.add_typer(fleet.app, name="fleet", short_help="Measure on many machines at once.", rich_help_panel="Measure")
app.add_typer(store.app, name="store", short_help="Millions of records, asked in SQL.", rich_help_panel="Look inside")
