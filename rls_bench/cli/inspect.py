"""``rls-bench inspect``: what the Triton kernels compile to for every GPU generation, on a machine without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rls_bench.cli import outputs, problem_argument
from rls_bench.errors import InspectionError

if TYPE_CHECKING:
    from rls_bench.cli.console import Console
    from rls_bench.inspector.baseline import Listing
    from rls_bench.inspector.inspection import Case, Inspection
    from rls_bench.problems.problem import Problem

_TABLE_COLUMNS = 200


def inspect(
    problem: Annotated[
        str, typer.Argument(help="What --l2 replays, in words ('B1 H32/8 L4096 D128 bf16 causal') or SUITE:NUMBER.")
    ] = "",
    arch: Annotated[list[str] | None, typer.Option(help="Such as sm_90; may be repeated. Default: all six.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A word of the case's title (prefill, D64, causal); all given must be there."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything found to this file.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A file of --json; exit 1 if registers, spills or instructions grew since.")
    ] = None,
    growth: Annotated[
        float, typer.Option(min=0, help="With --baseline: growth of instructions a score that is let pass, percent.")
    ] = 2.0,
    mix: Annotated[bool, typer.Option("--mix", help="Print the instruction mix of each hot loop.")] = False,
    sass: Annotated[bool, typer.Option("--sass", help="Print each hot loop.")] = False,
    l2: Annotated[
        bool, typer.Option("--l2", help="Replay the prefill kernel against each GPU's L2 (a model).")
    ] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw the replay as an image at this path; implies --l2.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes that compile. Default: one a core.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compile and count again what was inspected before.")] = False,
) -> None:
    """Compile every Triton kernel for each GPU generation and count its hot loop; needs no GPU.

    Exit 1: a case doesn't compile, or --baseline found a regression. Exit 2: an architecture asked for by name is
    unknown or can't be compiled here.
    """
    from rls_bench.cli.console import Console
    from rls_bench.inspector import baseline as baselines
    from rls_bench.inspector import cases, l2_sweep, tables
    from rls_bench.inspector.occupancy import LIMITS

    outputs.check_file(json, "--json")
    outputs.check_file(chart, "--chart")
    before = baselines.read(baseline) if baseline else None
    shipped = cases.shipped([name for name in arch or LIMITS if name in LIMITS])
    wanted = cases.select(shipped, only or [])
    if only and not wanted:
        raise InspectionError(f"--only: no case of {', '.join(arch or LIMITS)} has all of: {', '.join(only)}")
    with_l2 = l2 or chart is not None
    if problem and not with_l2:
        raise typer.BadParameter(f"problem: wanted beside --l2, which replays it; got {problem!r} alone")
    asked = problem_argument.parse(problem, "cuda") if problem else None
    # The replay needs one kernel's tiles, whatever else was asked for.
    replayed = [case for case in shipped if with_l2 and case.variant == l2_sweep.variant(asked or l2_sweep.PROBLEM)]
    if asked and not replayed:
        titles = dict.fromkeys(case.variant.title for case in shipped if case.variant.kernel == "prefill")
        raise InspectionError(f"--l2: wanted a problem of one of {', '.join(titles)}; got {asked.title}")
    wanted += [case for case in replayed if case not in wanted]
    listing, skipped = _inspected(wanted, jobs, fresh)
    skipped |= {name: f"unknown; known are {', '.join(LIMITS)}" for name in arch or [] if name not in LIMITS}
    console = Console()
    # Tables are wider than many a terminal: a wrapped line loses nothing, a cell cut short does.
    console.width = max(console.width, _TABLE_COLUMNS)
    for table in tables.resources(listing):
        console.print(table)
    if mix:
        console.print(tables.mix(listing))
    if sass:
        _print_loops([case for case in wanted if case.arch not in skipped])
    listing = _with_models(listing, console, with_l2, asked)
    if chart and listing.model_l2:
        from rls_bench.inspector.chart import draw

        draw(chart, listing.model_l2, l2_sweep.title(asked or l2_sweep.PROBLEM))
        typer.echo(f"chart: {chart}")
    if json:
        baselines.write(json, listing)
    failed = [inspection for inspection in listing.inspections if inspection.error]
    grown = []
    if before:
        tolerance = baselines.Tolerance(instructions=growth / 100)
        grown = baselines.regressions(before, listing, tolerance, whole=not only)
    _print_verdict(listing, failed, grown, skipped, before)
    if skipped and (arch or not listing.inspections):
        raise typer.Exit(2)
    if failed or grown:
        raise typer.Exit(1)


def _inspected(wanted: list[Case], jobs: int | None, fresh: bool) -> tuple[Listing, dict[str, str]]:
    """Inspections of all cases, and by name the architectures where not one case compiled, with the reason."""
    import os

    import platformdirs
    from rich.progress import Progress

    from rls_bench.cli.console import Console
    from rls_bench.inspector import bars, tax, workers
    from rls_bench.inspector.baseline import Listing
    from rls_bench.inspector.cache import Cache
    from rls_bench.inspector.compile import toolchain

    try:
        folder = platformdirs.user_cache_path("rls_bench")
    # A user without a home keeps nothing.
    except RuntimeError:
        folder = Path(os.devnull)
    cache = Cache(folder / "inspections", ignore_kept=fresh)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("compiling", total=len(wanted))
        found = workers.inspect_all(wanted, jobs, cache, lambda: progress.advance(bar))
    skipped = {}
    for name in dict.fromkeys(one.arch for one in found):
        errors = [one.error for one in found if one.arch == name]
        if all(errors):
            skipped[name] = errors[0]
    kept = [one for one in found if one.arch not in skipped]
    taxes = tax.taxes(kept)
    return Listing(toolchain(), kept, taxes, bars.judge(kept, taxes)), skipped


def _with_models(listing: Listing, console: Console, with_l2: bool, asked: Problem | None) -> Listing:
    """``listing`` with the models' predictions, printed; the L2 model's of ``asked``, where that is given."""
    from rls_bench.inspector import floors, l2_sweep, tables

    predicted = [floors.predictions(problem, listing.inspections) for problem in floors.EXAMPLES]
    for predictions in filter(None, predicted):
        console.print(tables.floors(predictions))
    swept = l2_sweep.sweep(listing.inspections, asked) if with_l2 else []
    replayed = asked or l2_sweep.PROBLEM
    if swept:
        console.print(tables.replays(swept, l2_sweep.title(replayed)))
    elif with_l2:
        kernel = l2_sweep.variant(replayed).title
        typer.echo(f"l2: nothing to replay, for {kernel} compiled for none of these architectures")
    return replace(listing, model_floors=[one for predictions in predicted for one in predictions], model_l2=swept)


def _print_loops(wanted: list[Case]) -> None:
    from rls_bench.inspector.workers import hot_listing

    for case in wanted:
        print(f"\n{case.arch} {case.variant.title}: hot loop")
        for instruction in hot_listing(case):
            predicate = f"@{instruction.predicate}" if instruction.predicate else ""
            line = f"{instruction.opcode} {instruction.operands}".rstrip()
            print(f"  {instruction.address:#06x} {instruction.group:<14}{predicate:>6} {line}")


def _print_verdict(
    listing: Listing, failed: list[Inspection], grown: list[str], skipped: dict[str, str], before: Listing | None
) -> None:
    from rls_bench.inspector import bars, baseline

    for name, (met, applies) in bars.tally(listing.bars).items():
        typer.echo(f"bar: {name}: met by {met} of {applies}")
    unmet = [bar for bar in listing.bars if not bar.met]
    typer.echo(f"{len(listing.inspections)} cases, {len(listing.bars)} bars, {len(unmet)} not met")
    for bar in unmet:
        typer.echo(f"  not met: {bar.case}: {bar.name}: {bar.value} (wanted {bar.limit})")
    for inspection in failed:
        typer.echo(f"  failed: {inspection.key}: {inspection.error}")
    if before and before.toolchain != listing.toolchain:
        typer.echo(f"  the baseline's compiler is another one ({before.toolchain}): growth may be the compiler's")
    unknown = baseline.unknown_to(before, listing) if before else []
    if unknown:
        typer.echo(f"  {len(unknown)} cases are not in the baseline, so that nothing says whether they grew:")
    for key in unknown:
        typer.echo(f"    {key}")
    for line in grown:
        typer.echo(f"  regression: {line}")
    for name, reason in skipped.items():
        typer.echo(f"{name}: skipped: {reason}", err=True)
