"""``rls-bench run``: the main job."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rls_bench.cli.console import Console
    from rls_bench.runner import Plan, Summary


def run(
    suite: Annotated[str, typer.Option(help="A suite by name; the machine chooses where none is given.")] = "",
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend by name; repeat for several. All by default.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Run every problem in this dtype.")
    ] = None,
    inputs: Annotated[Literal["real", "random"], typer.Option(help="Captured tensors, or random ones.")] = "real",
    out: Annotated[Path | None, typer.Option(help="Results file to append to [results/<time>.jsonl].")] = None,
    budget: Annotated[float, typer.Option(help="Seconds for the whole run.", min=1.0)] = 60.0,
    launches: Annotated[int, typer.Option(help="Process launches of each cell.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of inputs and of the order of turns.")] = 0,
    race: Annotated[bool, typer.Option(help="Stop early what is far behind the best.")] = True,
    probe: Annotated[list[str] | None, typer.Option(help="A probe by name; repeat for several.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Finish the run that was killed beside this results file.")
    ] = None,
) -> None:
    """Measure every backend on a suite: agreement first, then latency in turns; prints tables, appends records."""
    from rls_bench import runner
    from rls_bench.cli import tables
    from rls_bench.cli.console import Console

    console = Console()
    if resume:
        plan, path = _unfinished(resume), resume
    else:
        plan = _plan(suite, backend, dtype, inputs, budget, launches, seed, race, probe)
        path = out or Path("results") / f"{datetime.now():%Y-%m-%dT%H-%M-%S}.jsonl"
    summary = _run_with_progress(console, runner.run, plan, path, resume is not None)
    groups = tables.by_problem(summary.records)
    for group in groups:
        tables.show(console, group, summary.noise_floor)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    console.print(f"time: {summary.effort.title}", soft_wrap=True)
    console.print(f"records: {path}", soft_wrap=True)
    for group in groups:
        console.print(tables.verdict(group, summary.noise_floor), soft_wrap=True)
    if any(record.status in tables.BROKEN for record in summary.records):
        raise typer.Exit(1)


def _plan(
    suite: str,
    backends: list[str] | None,
    dtype: str | None,
    inputs: str,
    budget: float,
    launches: int,
    seed: int,
    race: bool,
    probes: list[str] | None,
) -> Plan:
    from rls_bench.backends import registry
    from rls_bench.machines import host
    from rls_bench.problems import suites
    from rls_bench.runner import Plan

    device = host.device()
    name = suite or suites.default(device, host.cpu_isa())
    changes: dict[str, Any] = {"inputs": inputs, "seed": seed, **({"dtype": dtype} if dtype else {})}
    try:
        problems = suites.get(name, device, **changes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return Plan(
        # A dtype for all can make two problems of a suite the same work.
        problems=list({problem.key: problem for problem in problems}.values()),
        backends=backends or registry.names(),
        suite=name,
        seed=seed,
        launches=launches,
        budget_seconds=budget,
        race=race,
        probes=tuple(probes or ()),
    )


def _unfinished(path: Path) -> Plan:
    from rls_bench import runner

    plan = runner.unfinished(path)
    if plan is None:
        raise typer.BadParameter(f"no run beside {path} was killed before its end")
    return plan


def _run_with_progress(console: Console, run: Any, plan: Plan, path: Path, resume: bool) -> Summary:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=1.0)
        summary: Summary = run(
            plan,
            path,
            resume=resume,
            progress=lambda event: progress.update(task, completed=event.share, description=event.message[:60]),
        )
    return summary
