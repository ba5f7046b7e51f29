"""``rls-bench fleet run``: the same cells on every kind of device, by one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rls_bench.cli import outputs, problem_argument
from rls_bench.cli.main import INTERRUPTED

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.fleet.conclusion import Conclusion
    from rls_bench.fleet.driver import Outcome, State
    from rls_bench.fleet.folder import Folder
    from rls_bench.fleet.words import Hello
    from rls_bench.problems.problem import Problem

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def fleet() -> None:
    """Many machines: every kind of device measures the same cells. Needs the extra ``fleet`` (Ray)."""


@app.command("run")
def run(
    on: Annotated[str, typer.Option("--on", help="Kinds of devices: h100,b200, a processor's name, or cpu.")],
    suite: Annotated[str, typer.Option(help="A suite by name; the device chooses where none is given.")] = "",
    problem: Annotated[list[str] | None, typer.Option(help=f"{problem_argument.HELP} Repeat for several.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend by name; repeat for several. All by default.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Run every problem in this dtype.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for cells, ledger and records.")] = Path("results/fleet"),
    address: Annotated[
        str, typer.Option(help="Ray's address, or auto for the cluster of this machine; none starts Ray here.")
    ] = "",
    per_kind: Annotated[int, typer.Option(help="Machines of each kind that measure each cell.", min=1)] = 1,
    wait: Annotated[float, typer.Option(help="Seconds that a kind may have no device.", min=0.0)] = 0.0,
    retries: Annotated[int, typer.Option(help="How often a task that failed is tried again.", min=0)] = 2,
    budget: Annotated[float, typer.Option(help="Seconds for each problem on each device.", min=1.0)] = 60.0,
    launches: Annotated[int, typer.Option(help="Process launches of each cell.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of inputs and of the order of turns.")] = 0,
) -> None:
    """Measure what is missing in the folder on each kind, one task a device; prints what each kind says.

    Exit codes: 0 all is there, 1 cells are missing or a backend is broken, 2 usage or a kind that nobody has.
    """
    outputs.check_folder(out, "--out")
    names = tuple(word for part in on.split(",") if (word := part.strip().lower()))
    if not names or len({*names}) < len(names):
        raise typer.BadParameter(f"--on: wanted kinds such as h100,b200, each once; got {on!r}")
    from rls_bench.backends import registry
    from rls_bench.cli.console import Console
    from rls_bench.fleet import cluster, conclusion, driver
    from rls_bench.fleet.folder import Folder
    from rls_bench.fleet.ledger import Ledger
    from rls_bench.runner import Plan

    backends = tuple(dict.fromkeys(backend or registry.names()))
    for name in backends:
        registry.check_name(name)

    def problems(hello: Hello) -> list[Problem]:
        from rls_bench.problems import suites

        usual = suites.default(hello.device, hello.machine.cpu_isa)
        chosen = problem_argument.select(hello.device, suite=suite, problems=problem, default_suite=usual).problems
        changed = [replace(each, seed=seed, dtype=dtype or each.dtype) for each in chosen]
        return list({each.key: each for each in changed}.values())

    # A wrong word is told before anything starts.
    words = problem_argument.select("cpu", suite=suite, problems=problem, default_suite="laptop")
    named = suite or ("" if problem is None else words.words)
    plan = Plan(words.problems[:1], [*backends], suite=named, seed=seed, launches=launches, budget_seconds=budget)
    order = driver.Order(names, problems, backends, plan, per_kind, retries, wait)
    folder, ledger = Folder(out), Ledger(out / "ledger.jsonl")
    try:
        with cluster.connected(address) as fleet, _display() as show:
            outcome = driver.run(order, fleet, folder, ledger, show)
        found = conclusion.conclude(folder, outcome.hellos)
    finally:
        ledger.close()
    console = Console()
    _print(console, outcome, found, folder)
    if outcome.interrupted:
        console.print(f"interrupted: what was measured is kept in {out}; the same command goes on", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    from rls_bench.cli.tables import BROKEN

    broken = any(entry.status in BROKEN for entries in found.records.values() for entry in entries)
    raise typer.Exit(int(bool(broken or outcome.missing)))


@contextmanager
def _display() -> Iterator[Callable[[State], None]]:
    """One live table of all machines, on standard error, gone at the end."""
    from rich.live import Live

    from rls_bench.cli.console import Console

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
        yield lambda state: live.update(_table(state))


def _table(state: State) -> Table:
    from rich.table import Table

    counts = ", ".join(f"{kind} {there} of {wanted} cells" for kind, (there, wanted) in state.counts.items())
    table = Table("kind", "machine", "cells", "measures", title=counts, title_justify="left", box=None, pad_edge=False)
    for device in state.devices:
        if device.hello is None:
            doing = "starting"
        elif device.task is None:
            doing = "idle"
        else:
            doing = f"{device.task.problem.title}: {', '.join(device.task.backends)}"
        table.add_row(device.slot.kind, device.name or device.slot.machine, str(device.done), doing)
    return table


def _print(console: Console, outcome: Outcome, found: Conclusion, folder: Folder) -> None:
    """Each kind's tables and verdicts, then whatever a person should know."""
    from rls_bench.cli import tables
    from rls_bench.records.latency import Latencies

    for kind, records in found.records.items():
        machines = ", ".join(name for each, name in outcome.hellos if each == kind)
        console.print(f"{kind}: {machines}", style="bold", soft_wrap=True)
        latencies = Latencies(records)
        groups = tables.by_problem(records)
        for group in groups:
            tables.show(console, group, group[0].noise_floor, latencies)
        for group in groups:
            console.print(tables.verdict(group, group[0].noise_floor, latencies), soft_wrap=True)
    warnings = found.differences + outcome.troubles
    for kind, odd in found.suspects.items():
        warnings += [f"{kind}: {one.machine} is a suspect and left out: {one.reason}" for one in odd]
    warnings += [f"{kind}: {count} cells are missing" for kind, count in outcome.missing.items() if count]
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    console.print(f"records: {folder.verdict}", soft_wrap=True)
