"""``rls-bench sweep``: the published experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rls_bench.cli import outputs

PUBLISHED = "0,0.05,0.1,0.15,0.25,0.4,0.6,0.8,1"


def sweep(
    length: Annotated[int, typer.Option(help="Keys and queries.")] = 1024,
    heads: Annotated[int, typer.Option(help="Heads.")] = 32,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1,2",
    strengths: Annotated[str, typer.Option(help="Values of λ, with commas between.")] = PUBLISHED,
    logit_scale: Annotated[float, typer.Option(help="Spread of the random logits.")] = 0.1,
    eps: Annotated[float | None, typer.Option(help="Floor of every logarithm; 1e-9 unless given.")] = None,
    normalize: Annotated[str, typer.Option(help="Scale of saliency: minmax, zscore, rank or none.")] = "minmax",
    backend: Annotated[
        str | None, typer.Option(help="Take the metrics from this backend's row statistics, not from the matrix.")
    ] = None,
    head_dim: Annotated[
        int | None,
        typer.Option(
            help="With --backend: random query and key this wide, in place of the very scores (as wide as --length)."
        ),
    ] = None,
    overhead_rounds: Annotated[int, typer.Option(help="Rounds that time the overhead; 0 leaves it out.")] = 21,
    out: Annotated[Path, typer.Option(help="Folder for the tables, pictures and REPORT.md.")] = Path("results/sweep"),
) -> None:
    """Reproduce the published sweep of λ: entropy reduction and KL, with the overhead measured on this machine."""
    import datetime
    import sys

    from rich.progress import Progress
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.errors import BackendUnavailable, BackendUnsupported
    from rls_bench.machines import host
    from rls_bench.steering import overhead, sweep_report
    from rls_bench.steering import sweep as experiment
    from rls_bench.steering.metrics import PUBLISHED_EPS

    if overhead_rounds < 0 or overhead_rounds == 1:
        raise typer.BadParameter(f"--overhead-rounds: wanted 0, or 2 and more for an interval; got {overhead_rounds}")
    if backend is not None and eps is not None:
        raise typer.BadParameter("a backend's statistics describe eps = 0; leave --eps out beside --backend")
    try:
        settings = experiment.Settings(
            length=length,
            heads=heads,
            seeds=tuple(int(seed) for seed in seeds.split(",")),
            strengths=tuple(float(strength) for strength in strengths.split(",")),
            logit_scale=logit_scale,
            eps=PUBLISHED_EPS if eps is None else eps,
            normalize=normalize,  # type: ignore[arg-type]
            backend=backend,
            head_dim=head_dim,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    # Last: looking makes the folder, and what is refused leaves nothing behind.
    outputs.check_folder(out, "--out")

    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("heads", total=settings.heads * len(settings.seeds))
        result = experiment.run(settings, lambda done: progress.advance(task, done))

    table = Table("λ", "entropy reduction %", "KL nats")
    for row in result.rows:
        table.add_row(*row.printed())
    console.print(table)

    cost, no_cost = None, "left out by --overhead-rounds 0."
    if overhead_rounds:
        try:
            cost = overhead.measure(backend or "sdpa-cpu", heads, length, rounds=overhead_rounds)
            console.print(f"unsteered {cost.unsteered_ms:.2f} ms ({cost.shape}); {cost.words}", soft_wrap=True)
        except (BackendUnavailable, BackendUnsupported) as error:
            no_cost = f"{error}."
            console.print(f"overhead not measured: {error}")

    greatest = max(settings.strengths)
    sweep_report.write(
        out,
        result,
        experiment.example(settings, greatest),
        greatest,
        cost,
        no_cost,
        host.current(),
        " ".join(["rls-bench", *sys.argv[1:]]),
        datetime.date.today().isoformat(),
    )
    matches = sweep_report.published_matches(result)
    if matches is not None:
        console.print(f"published table: {matches} of {2 * len(experiment.PUBLISHED)} figures as printed")
    console.print(f"wrote {out / 'REPORT.md'}")
