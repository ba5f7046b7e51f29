"""Which problems a command is to take: in words, by suite, from a workload file, or a model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rls_bench.problems.problem import Problem
    from rls_bench.problems.workload import Weighted

HELP = "In words, as tables print it ('B8 H32/8 Lq1 Lk4096 D128 bf16'), or SUITE or SUITE:NUMBER (standard:3)."


class Selection(NamedTuple):
    """Problems, the words on the command line that would ask for them again, and a line for all that was left out."""

    problems: list[Problem]
    words: str
    left_out: Sequence[str] = ()


class OfModel(NamedTuple):
    """A model by name or config.json, the contexts asked for (``1024,4096``), and images before each."""

    name: str
    context: str = ""
    images: int = 0
    image_tokens: int = 0


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


def _of_model(asked: OfModel, device: str, batches: list[int], length: str) -> Selection:
    from rls_bench.errors import ProblemError
    from rls_bench.problems import models

    if length:
        raise typer.BadParameter("--length: a model's problems are over --context; got both")
    contexts = numbers("--context", asked.context)
    try:
        weighted, left_out = models.problems(
            models.find(asked.name),
            device,
            contexts=contexts or (1024, 4096),
            batches=batches or (1,),
            images=asked.images,
            image_tokens=asked.image_tokens,
        )
    except ProblemError as error:
        raise typer.BadParameter(str(error)) from error
    if not weighted:
        raise typer.BadParameter(f"--model: nothing is left of it: {'; '.join(left_out)}")
    options = {"context": asked.context, "images": asked.images, "image-tokens": asked.image_tokens}
    words = [f"--model {asked.name}", *(f"--{name} {value}" for name, value in options.items() if value)]
    words += [f"--batch {','.join(map(str, batches))}"] * bool(batches)
    return Selection([one.problem for one in weighted], " ".join(words), left_out)


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
    model: OfModel | None = None,
    default_suite: str = "",
) -> Selection:
    """What was asked for, the weightiest first, crossed with the axes; ``default_suite`` where nothing was.

    Raises typer.BadParameter where two sources are named or an axis makes no sense.
    """
    from rls_bench.problems import suites
    from rls_bench.problems import workload as workloads

    axes = {"batch": numbers("--batch", batch), "length": numbers("--length", length)}
    sources = (("suite", suite), ("problem", problems), ("workload", workload), ("model", model))
    asked = [f"--{name}" for name, given in sources if given]
    if len(asked) > 1:
        raise typer.BadParameter(f"wanted one of --suite, --problem, --workload and --model; got {' and '.join(asked)}")
    if model:
        return _of_model(model, device, axes["batch"], length)
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
