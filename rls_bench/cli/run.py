"""``rls-bench run``: the main job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from rls_bench.cli import outputs, problem_argument
from rls_bench.cli.main import CANNOT, INTERRUPTED

if TYPE_CHECKING:
    from rls_bench.errors import BackendUnavailable
    from rls_bench.records.record import Record
    from rls_bench.runner import Event, Plan

Outcome = TypeVar("Outcome")


def run(
    suite: Annotated[str, typer.Option(help="A suite by name; the machine chooses where none is given.")] = "",
    problem: Annotated[list[str] | None, typer.Option(help=f"{problem_argument.HELP} Repeat for several.")] = None,
    workload: Annotated[
        Path | None, typer.Option(help="Problems with weights from a TOML file, the weightiest first.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Prefill and decode of a model: its config.json, the folder, or a name: Llama-3.1-8B."),
    ] = "",
    context: Annotated[str, typer.Option(help="A model's tokens of text: 1024,4096.")] = "",
    images: Annotated[int, typer.Option(help="Images beside a model's text.", min=0)] = 0,
    image_tokens: Annotated[
        int, typer.Option(help="Tokens of an image, where the model has no number of its own.", min=0)
    ] = 0,
    batch: Annotated[str, typer.Option(help="Run every problem at these batches: 1,8,64.")] = "",
    length: Annotated[str, typer.Option(help="Run every problem at these numbers of keys: 1024,4096.")] = "",
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend by name; repeat for several. All by default.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Run every problem in this dtype.")
    ] = None,
    inputs: Annotated[
        Literal["real", "random"] | None, typer.Option(help="Captured tensors (the default), or random ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Results file to append to [results/<time>.jsonl].")] = None,
    budget: Annotated[
        float, typer.Option(help="Seconds on the clock for all of the run; what they can't buy is said first.", min=1.0)
    ] = 120.0,
    launches: Annotated[int, typer.Option(help="Process launches of each cell.", min=1)] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of inputs and of the order of turns.")] = None,
    race: Annotated[bool, typer.Option(help="Stop early what is far behind the best.")] = True,
    probe: Annotated[list[str] | None, typer.Option(help="A probe by name; repeat for several.")] = None,
    today: Annotated[
        str, typer.Option(help="The backend that the summary holds the fastest against [what torch would take].")
    ] = "",
    detail: Annotated[bool, typer.Option("--detail", help="A table for each problem, however many they are.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Finish the run that was killed beside this results file.")
    ] = None,
) -> None:
    """Measure every backend on a suite: agreement first, then latency in turns; prints tables, appends records."""
    from rls_bench import runner
    from rls_bench.cli import tables
    from rls_bench.cli.console import Console
    from rls_bench.problems import suites
    from rls_bench.records.latency import Latencies

    console = Console()
    if resume:
        plan, path = _unfinished(resume), resume
    else:
        from rls_bench.machines import host

        device = host.device()
        chosen = problem_argument.select(
            device,
            suite=suite,
            problems=problem,
            workload=workload,
            batch=batch,
            length=length,
            model=_of_model(model, context, images, image_tokens),
            default_suite=suites.default(device, host.cpu_isa()),
        )
        for line in chosen.left_out:
            console.print(line, style="yellow", soft_wrap=True)
        plan = _plan(chosen, backend, dtype, inputs, budget, launches, seed, race, probe)
        path = out or Path("results") / f"{datetime.now():%Y-%m-%dT%H-%M-%S}.jsonl"
    outputs.check_file(path, "--out")
    if today and today not in plan.backends:
        raise typer.BadParameter(f"--today: wanted one that is measured, {', '.join(plan.backends)}; got {today!r}")
    try:
        summary = with_progress(
            lambda progress: runner.run(plan, path, resume=resume is not None, progress=progress, glances=True)
        )
    except KeyboardInterrupt:
        kept = f"what was measured is kept; rls-bench run --resume {path} goes on"
        console.print(kept if _has_journal(path) else "nothing was measured yet", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    groups = tables.by_problem(summary.records)
    latencies = Latencies(summary.records)
    in_detail = detail or len(groups) <= tables.FEW
    if not in_detail:
        now = (today,) if today else tables.PLAIN_TORCH
        console.print(tables.summary(groups, summary.noise_floor, latencies, now))
        console.print(f"each backend: --detail, or rls-bench show {path}", soft_wrap=True)
    for group in groups if in_detail else ():
        tables.show(console, group, summary.noise_floor, latencies)
    if summary.left_out:
        console.print(f"--budget {plan.budget_seconds:g} left out {summary.left_out}", style="yellow", soft_wrap=True)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    console.print(f"time: {summary.effort.title}", soft_wrap=True)
    if summary.records:
        console.print(f"records: {path}", soft_wrap=True)
    for group in groups if in_detail else ():
        console.print(tables.verdict(group, summary.noise_floor, latencies), soft_wrap=True)
    if summary.interrupted:
        rest = f"; rls-bench run --resume {path} goes on with {summary.unmeasured} more" if summary.unmeasured else ""
        console.print(f"interrupted: {len(summary.records)} records are kept in {path}{rest}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if not summary.records:
        console.print(
            f"nothing was measured: starting alone takes about {summary.effort.start:.0f} s here; raise --budget"
        )
        raise typer.Exit(CANNOT)
    if any(record.status in tables.BROKEN for record in summary.records):
        raise typer.Exit(1)
    if missing := _missing(plan.backends, summary.records):
        raise missing


def _missing(names: Sequence[str], records: Sequence[Record]) -> BackendUnavailable | None:
    """The complaint of the first MODULE:ATTRIBUTE that no process could load, or None."""
    from rls_bench.errors import BackendUnavailable

    for name in names:
        own = [record for record in records if record.backend == name]
        if ":" in name and own and all(record.status == "unavailable" for record in own):
            return BackendUnavailable(own[0].reason)
    return None


def _of_model(name: str, context: str, images: int, image_tokens: int) -> problem_argument.OfModel | None:
    if name:
        return problem_argument.OfModel(name, context, images, image_tokens)
    if context or images or image_tokens:
        raise typer.BadParameter("--context, --images and --image-tokens: wanted beside --model; got none")
    return None


def _plan(
    chosen: problem_argument.Selection,
    backends: list[str] | None,
    dtype: str | None,
    inputs: str | None,
    budget: float,
    launches: int,
    seed: int | None,
    race: bool,
    probes: list[str] | None,
) -> Plan:
    from rls_bench.backends import registry
    from rls_bench.probes import registry as probe_registry
    from rls_bench.runner import Plan

    # What is left out leaves a problem its own.
    changes: dict[str, Any] = {"inputs": inputs, "seed": seed, "dtype": dtype}
    changes = {name: value for name, value in changes.items() if value is not None}
    problems = [replace(problem, **changes) for problem in chosen.problems]
    for name in {*(probes or ())} - {*probe_registry.names()}:
        raise typer.BadParameter(f"--probe: wanted one of {', '.join(probe_registry.names())}; got {name!r}")
    if backends and len({*backends}) < len(backends):
        raise typer.BadParameter(f"--backend: wanted each name once; got {', '.join(backends)}")
    return Plan(
        # A dtype for all can make two problems of a suite the same work.
        problems=list({problem.key: problem for problem in problems}.values()),
        backends=backends or registry.names(),
        suite=chosen.words.removeprefix("--suite ") if " --" not in chosen.words else chosen.words,
        seed=seed or 0,
        launches=launches,
        budget_seconds=budget,
        limit_seconds=budget,
        race=race,
        probes=tuple(probes or ()),
    )


def _unfinished(path: Path) -> Plan:
    from rls_bench import runner

    plan = runner.unfinished(path)
    if plan is None:
        raise typer.BadParameter(f"no run beside {path} was killed before its end")
    return plan


def _has_journal(path: Path) -> bool:
    """Whether a run beside ``path`` has begun to take notes."""
    from rls_bench.runner import journal

    return journal.is_begun(path)


def with_progress(run: Callable[[Callable[[Event], None]], Outcome]) -> Outcome:
    """What ``run`` returns, which tells how far it is meanwhile, and may have something to show."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from rls_bench.cli import tables
    from rls_bench.cli.console import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    console = Console()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=1.0)
        # Standard output may be a file of figures.
        words = console if console.is_terminal else Console(stderr=True)

        def tell(event: Event) -> None:
            if event.kind == "plan":
                words.print(event.message, soft_wrap=True)
            elif event.kind == "glance":
                tables.glance(words, event.records, event.message)
            else:
                progress.update(task, completed=event.share, description=event.message[:60])

        return run(tell)
