"""``rls-bench bisect``: which commit, or which version of a package, made it slow."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rls_bench.cli import problem_argument
from rls_bench.cli.compare import share

if TYPE_CHECKING:
    from rls_bench.bisect.search import Found, Measure, Ruling
    from rls_bench.cli.console import Console

_UNCERTAIN = 3


def bisect(
    good: Annotated[str, typer.Option(help="The commit that was fast.")] = "",
    bad: Annotated[str, typer.Option(help="The commit that is slow.")] = "",
    package: Annotated[
        tuple[str, str], typer.Option(help="In place of commits a package and its versions: triton 3.6.0..3.9.0.")
    ] = ("", ""),
    problem: Annotated[str, typer.Option(help=problem_argument.HELP)] = "",
    backend: Annotated[str, typer.Option(help="The backend that became slow.")] = "",
    by: Annotated[
        Literal["latency", "instructions"],
        typer.Option(help="latency, or instructions: what the Triton kernels compile to, without a GPU."),
    ] = "latency",
    arch: Annotated[str, typer.Option(help="With --by instructions: compile for this architecture.")] = "sm_90",
    only: Annotated[
        list[str] | None, typer.Option(help="With --by instructions: a word of the cases' titles; repeat for several.")
    ] = None,
    threshold: Annotated[str, typer.Option(help="The least slowdown worth a search: 2% or 0.02.")] = "2%",
    budget: Annotated[
        float, typer.Option(help="Seconds for each candidate, twice if it stays unclear.", min=1.0)
    ] = 120,
    seed: Annotated[int, typer.Option(help="Seed of inputs and of the order of turns.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the records [results/bisect-<time>].")] = None,
) -> None:
    """Find the first commit or version that is slower, each candidate measured against the good one.

    Exit codes: 0 found, 3 found only between candidates or without certainty, 2 usage or no slowdown at all.
    """
    margin = share(threshold)
    if bool(package[0]) == bool(good or bad) or bool(good) != bool(bad):
        raise typer.BadParameter("wanted --good and --bad, or --package NAME FIRST..LAST")
    if by == "latency" and not (problem and backend):
        raise typer.BadParameter("wanted --problem and --backend, whose latency is looked at; or --by instructions")
    from rls_bench.ab import trees
    from rls_bench.bisect import environments, search
    from rls_bench.cli.console import Console

    candidates = environments.versions(*package) if package[0] else trees.between(good, bad)
    folder = out or Path("results") / f"bisect-{datetime.now():%Y-%m-%dT%H-%M-%S}"
    if by == "latency":
        measure = _by_latency(package[0], candidates[0], problem, backend, budget, seed, folder)
    else:
        measure = _by_instructions(package[0], candidates[0], arch, only or [])
    console = Console()
    console.print(f"{len(candidates)} candidates from {_short(candidates[0])} to {_short(candidates[-1])}")
    found = search.search(candidates, measure, margin, lambda ruling, left: _tell(console, ruling, left))
    words = [f"--by {by}"] if by != "latency" else []
    words += [f"--problem {shlex.quote(problem)}"] * bool(problem) + [f"--backend {backend}"] * bool(backend)
    words += [f"--arch {arch}", *(f"--only {word}" for word in only or [])] if by != "latency" else []
    _conclude(console, found, package[0], by, " ".join([*words, f"--threshold {threshold}"]))
    raise typer.Exit(0 if found.is_certain else _UNCERTAIN)


def _by_latency(package: str, good: str, problem: str, backend: str, budget: float, seed: int, folder: Path) -> Measure:
    from rls_bench.ab import trees
    from rls_bench.bisect import environments, latency
    from rls_bench.cli import run as runs
    from rls_bench.machines import host

    found = problem_argument.parse(problem, host.device())

    def tree(candidate: str) -> trees.Tree:
        return environments.of_version(package, candidate) if package else trees.of_commit(candidate)

    return latency.measure(
        tree, good, found, backend, folder, budget_seconds=budget, seed=seed, shown=runs.with_progress
    )


def _by_instructions(package: str, good: str, arch: str, only: list[str]) -> Measure:
    from rls_bench.ab import trees
    from rls_bench.backends.sources import PACKAGES
    from rls_bench.bisect import environments, instructions

    def paths(candidate: str) -> list[str]:
        if package:
            return [str(environments.of_version(package, candidate).path / PACKAGES)]
        root = trees.of_commit(candidate).path
        return [str(root), str(root / "kernels"), str(root / "baselines")]

    return instructions.measure(paths, good, arch, only)


def _tell(console: Console, ruling: Ruling, left: int) -> None:
    figures = ruling.measured.title if ruling.measured else ruling.reason
    unsure = "" if ruling.is_certain else ", only nearer to it"
    side = "skipped" if ruling.side == "skip" else f"{ruling.side}{unsure}"
    console.print(f"{_short(ruling.candidate)}: {side}: {figures}; {left} left", soft_wrap=True)


def _conclude(console: Console, found: Found, package: str, by: str, words: str) -> None:
    from rls_bench.ab import trees

    name = f"{package} {found.first_bad}" if package else f"{found.first_bad} {trees.subject(found.first_bad)}"
    console.print(f"first slow one: {name}", style="bold", soft_wrap=True)
    console.print(f"{found.slowdown.title} the good one's {by}; the last good one is {found.last_good}", soft_wrap=True)
    if found.skipped:
        skipped = ", ".join(map(_short, found.skipped))
        console.print(f"or one of those that could not be measured: {skipped}", style="yellow", soft_wrap=True)
    elif not found.is_certain:
        console.print("not for certain: --budget gives each candidate longer", style="yellow", soft_wrap=True)
    if package:
        again = f"bisect --package {package} {found.last_good}..{found.first_bad} {words}"
    elif by == "latency":
        again = f"ab {_short(found.last_good)} {_short(found.first_bad)} {words}"
    else:
        again = f"bisect --good {_short(found.last_good)} --bad {_short(found.first_bad)} {words}"
    console.print(f"again: rls-bench {again}", soft_wrap=True)


def _short(candidate: str) -> str:
    return candidate[:12]
