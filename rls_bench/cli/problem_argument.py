"""Which problems a command is to take: in words, by suite, from a workload file, or a model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from rls_bench.problems.problem import Problem
    from rls_bench.problems.workload import Weighted

HELP = "In words, as tables print it ('B8 H32/8 Lq1 Lk4096 D128 bf16'), or SUITE or SUITE:NUMBER (standard:3)."


class Selection(NamedTuple):
    """Problems, and the words on the command line that would ask for them again."""

    problems: list[Problem]
    words: str


def parse(text: str, device: str) -> Problem:
    """The problem that ``text`` names, on ``device``. Raises typer.BadParameter."""
    from rls_bench.errors import ProblemError
    from rls_bench.problems import grammar, suites

    name, _, number = text.partition(":")
    if name.strip() not in suites.names():
        try:
            return grammar.parse(text, device)
        except ProblemError as error:
            # One word alone may be meant for a suite.
            suite = f"; or a suite: {', '.join(suites.names())}" if len(text.split()) == 1 else ""
            raise typer.BadParameter(f"{error}{suite}") from error
    problems = suites.get(name.strip(), device)
    index = int(number or 1) if (number or "1").isdigit() else 0
    if not 1 <= index <= len(problems):
        raise typer.BadParameter(f"problem: suite {name} has numbers 1 to {len(problems)}; got {number!r}")
    return problems[index - 1]


def numbers(option: str, text: str) -> list[int]:
    """``1,8,64`` as [1, 8, 64]; empty for nothing."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if bad := [part for part in parts if not (part.isdecimal() and int(part) > 0)]:
        raise typer.BadParameter(f"{option}: wanted numbers of 1 or more such as 1,8,64; got {bad[0]!r}")
    return [int(part) for part in parts]


def select(
    device: str,
    *,
    suite: str = "",
    problems: list[str] | None = None,
    workload: Path | None = None,
    batch: str = "",
    length: str = "",
    default_suite: str = "",
) -> Selection:
    """What was asked for, the weightiest first, crossed with the axes; ``default_suite`` where nothing was.

    Raises typer.BadParameter where two sources are named or an axis makes no sense.
    """
    from rls_bench.problems import suites
    from rls_bench.problems import workload as workloads

    axes = {"batch": numbers("--batch", batch), "length": numbers("--length", length)}
    asked = [f"--{name}" for name, given in (("suite", suite), ("problem", problems), ("workload", workload)) if given]
    if len(asked) > 1:
        raise typer.BadParameter(f"wanted one of --suite, --problem and --workload; got {' and '.join(asked)}")
    weighted: tuple[Weighted, ...]
    if workload:
        weighted, words = workloads.read(workload, device).problems, f"--workload {workload}"
    elif problems:
        found = [parse(text, device) for text in problems]
        if twice := [text for n, text in enumerate(problems) if found[n].key in {one.key for one in found[:n]}]:
            raise typer.BadParameter(f"--problem: {twice[0]!r} is there twice")
        weighted, words = tuple(map(workloads.Weighted, found)), " ".join(f"--problem '{text}'" for text in problems)
    else:
        name = suite or default_suite
        try:
            weighted, words = tuple(map(workloads.Weighted, suites.get(name, device))), f"--suite {name}"
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    ordered = [one.problem for one in sorted(weighted, key=lambda one: -one.weight)]
    for option, given in (("--batch", batch), ("--length", length)):
        words += f" {option} {given}" if given else ""
    return Selection(workloads.crossed(ordered, axes), words)
