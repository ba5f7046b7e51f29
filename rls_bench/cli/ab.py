"""``rls-bench ab BASE [NEW]``: did a commit slow anything, both measured at once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rls_bench.cli import next_step, problem_argument
from rls_bench.cli.compare import Format, share, write


def ab(
    base: Annotated[str, typer.Argument(help="Commit to compare with: a hash, a branch, HEAD~1.")],
    new: Annotated[str | None, typer.Argument(help="Commit to judge; the working tree by default.")] = None,
    path: Annotated[Path | None, typer.Option(help="Judge the sources in this directory, as they are.")] = None,
    suite: Annotated[str, typer.Option(help="A suite by name; the machine chooses where none is given.")] = "",
    problem: Annotated[list[str] | None, typer.Option(help=f"{problem_argument.HELP} Repeat for several.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="A backend by name; repeat for several. All by default.")
    ] = None,
    threshold: Annotated[str, typer.Option(help="Differences up to this share count as the same: 2% or 0.02.")] = "2%",
    budget: Annotated[float, typer.Option(help="Seconds on the clock for all of the run.", min=1.0)] = 240.0,
    seed: Annotated[int, typer.Option(help="Seed of inputs and of the order of turns.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="OUT.base.jsonl and OUT.new.jsonl get the records [results/ab-<time>].")
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="text, json, markdown, or github (annotations).")
    ] = Format.text,
) -> None:
    """Measure two commits in one run, taking turns, until each cell is slower, faster or the same beyond doubt.

    Exit codes: 0 none slower, 1 slower or broken, 3 ambiguous only, 2 usage.
    """
    margin = share(threshold)
    if new is not None and path is not None:
        raise typer.BadParameter(f"wanted a commit or --path; got {new} and {path}")
    from rls_bench.ab import trees, trial
    from rls_bench.backends import registry
    from rls_bench.cli import run as runs
    from rls_bench.machines import host
    from rls_bench.problems import suites

    device = host.device()
    usual = suites.default(device, host.cpu_isa())
    chosen = problem_argument.select(device, suite=suite, problems=problem, default_suite=usual)
    old = trees.of_commit(base)
    fresh = trees.of_commit(new) if new else trees.of_directory(path or Path.cwd())
    comparison = runs.with_progress(
        lambda progress: trial.run(
            old,
            fresh,
            chosen.problems,
            backend or registry.names(),
            out or Path("results") / f"ab-{datetime.now():%Y-%m-%dT%H-%M-%S}",
            threshold=margin,
            budget_seconds=budget,
            suite=suite or ("" if problem else usual),
            seed=seed,
            progress=progress,
        )
    )
    # Cells that were not told in the time are given four times as much.
    words = [base, *([new] if new else []), *(["--path", str(path)] if path else [])]
    again = ("rls-bench", "ab", *words, "--threshold", threshold, "--budget", f"{4 * budget:g}")
    files = (comparison.base.path, comparison.new.path)
    write(comparison, output, next_step.after_comparison(comparison, again, files))
    raise typer.Exit(comparison.exit_code)
