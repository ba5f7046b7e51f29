"""``rls-bench workload FILE``: what was asked, and the few problems that stand for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rls_bench.cli import documents, outputs

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.problems.problem import Problem
    from rls_bench.problems.workload import Unit, Workload
    from rls_bench.traffic.grouping import Group

# Families and lengths that a table shows; the picture and --json have all.
_MOST_ROWS = 12
# Requests of a CSV file that are replayed; more would tell the same.
_MOST_REQUESTS = 10_000
_SIGNS = "▁▂▃▄▅▆▇█"


class Asked(NamedTuple):
    """Calls of each problem, for every 1,000 of ``unit``, and lines that say where they come from."""

    calls: Mapping[Problem, float]
    unit: Unit
    notes: list[str]


def workload(
    file: Annotated[Path, typer.Argument(help="What record_workload wrote, a workload (TOML), or requests (CSV).")],
    most: Annotated[int, typer.Option(help="Most problems that stand for all.", min=1)] = 12,
    requests: Annotated[
        int | None, typer.Option(help="Requests that were served while it was recorded, where it doesn't say.", min=1)
    ] = None,
    model: Annotated[
        str, typer.Option(help="The model that serves a CSV file's requests, as --model of run names it.")
    ] = "",
    max_batch: Annotated[int, typer.Option(help="Most sequences that it runs at a time.", min=1)] = 32,
    chunk: Annotated[int, typer.Option(help="Most tokens that it reads in a step.", min=1)] = 512,
    out: Annotated[Path | None, typer.Option(help="Write those problems here, for run and choose --workload.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw it here: .png, .svg or .pdf.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One object in place of the tables.")] = False,
) -> None:
    """Show a recorded workload by share of calls and time, and the few problems that represent it."""
    outputs.check_file(out, "--out")
    outputs.check_picture(chart, "--chart")
    from rls_bench.problems import workload as workloads
    from rls_bench.traffic import grouping

    asked = _replayed(file, model, max_batch, chunk) if file.suffix == ".csv" else read(file, requests=requests)
    if model and file.suffix != ".csv":
        raise typer.BadParameter(f"--model: wanted beside a CSV file of requests; got {file}")
    groups = grouping.representatives(asked.calls, most)
    if out:
        workloads.write(out, represented(groups, asked.unit, f"{len(groups)} problems that stand for {file.name}"))
    if chart:
        from rls_bench.traffic import chart as charts

        charts.draw(chart, asked.calls)
    if json:
        _print_json(asked, groups)
        return
    from rls_bench.cli.console import Console

    console = Console()
    for note in asked.notes:
        console.print(note, soft_wrap=True)
    console.print(_families(asked.calls), _groups(groups, asked.unit))
    for path in filter(None, (out, chart)):
        console.print(f"wrote {path}", soft_wrap=True)
    if out:
        console.print(f"measure it: rls-bench run --workload {out} --out measured.jsonl", soft_wrap=True)


def read(path: Path, device: str = "cpu", requests: int | None = None) -> Asked:
    """The calls in a trace or a workload file. Raises RecordError or ProblemError."""
    from rls_bench.problems import workload as workloads
    from rls_bench.traffic import trace

    if path.suffix == ".toml":
        found = workloads.read(path, device)
        calls: dict[Problem, float] = {}
        for one in found.problems:
            calls[one.problem] = calls.get(one.problem, 0.0) + one.weight
        return Asked(calls, found.unit, [found.about] if found.about else [])
    recorded = trace.read(path)
    if not recorded.calls:
        raise typer.BadParameter(f"{path}: nothing was asked while it was recorded")
    served = requests or recorded.requests
    total = sum(recorded.calls.values())
    notes = [
        f"{total:,} calls of {len(recorded.calls):,} problems"
        + (f", {served:,} requests" if served else "")
        + f"; {recorded.processes} process{'es' * (recorded.processes > 1)}, {recorded.seconds:.0f} s"
    ]
    if recorded.uncounted:
        notes.append(f"{recorded.uncounted:,} calls more of problems beyond the most that are told apart")
    if recorded.torn:
        notes.append(f"left out {recorded.torn} lines that cannot be read: {recorded.why_torn}")
    scale = 1000 / (served or total)
    unit: Unit = "requests" if served else "calls"
    return Asked({problem: number * scale for problem, number in recorded.calls.items()}, unit, notes)


def _replayed(path: Path, name: str, max_batch: int, chunk: int) -> Asked:
    from rls_bench.errors import ProblemError
    from rls_bench.machines import host
    from rls_bench.problems import models
    from rls_bench.traffic import replay

    if not name:
        raise typer.BadParameter(f"--model: wanted one of {', '.join(models.names())} or a config.json; got none")
    requests = replay.read(path)
    served = requests[:_MOST_REQUESTS]
    try:
        model = models.find(name)
        calls, left_out = replay.calls(model, served, max_batch=max_batch, chunk=chunk, device=host.device())
    except (ProblemError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if not calls:
        raise typer.BadParameter(f"--model: nothing is left of it: {'; '.join(left_out)}")
    of = f"the first {len(served):,} of {len(requests):,}" if len(served) < len(requests) else f"{len(served):,}"
    note = f"{of} requests, replayed: at most {max_batch} sequences at a time, {chunk} tokens a step"
    scale = 1000 / len(served)
    return Asked({problem: number * scale for problem, number in calls.items()}, "requests", [note, *left_out])


def represented(groups: list[Group], unit: Unit, about: str) -> Workload:
    """The workload of the groups' representatives."""
    from rls_bench.problems.workload import Weighted, Workload

    return Workload(tuple(Weighted(group.problem, float(f"{group.weight:.6g}")) for group in groups), about, unit)


def _families(calls: Mapping[Problem, float]) -> Table:
    from rich.table import Table

    from rls_bench.traffic.chart import name_of
    from rls_bench.traffic.estimate import seconds

    families: dict[str, dict[Problem, float]] = {}
    for problem, number in calls.items():
        families.setdefault(name_of(problem), {})[problem] = number
    times = {
        name: math.fsum(number * seconds(problem) for problem, number in members.items())
        for name, members in families.items()
    }
    every, all_time = math.fsum(calls.values()), math.fsum(times.values())
    columns = ("shape", "calls", "est. time", "key lengths", "5 % to 95 %", "")
    table = Table(*columns, title="What is asked", title_justify="left", box=None, pad_edge=False)
    ordered = sorted(families, key=lambda name: -times[name])
    for name in ordered[:_MOST_ROWS]:
        members = families[name]
        low, middle, high = (_quantile(members, share) for share in (0.05, 0.5, 0.95))
        count = len({problem.key_length for problem in members})
        share = math.fsum(members.values()) / every
        lengths = f"{middle}" if count == 1 else f"median {middle}, {count} lengths"
        between = "" if count == 1 else f"{low} to {high}"
        table.add_row(name, f"{share:.1%}", f"{times[name] / all_time:.1%}", lengths, between, _histogram(members))
    if rest := ordered[_MOST_ROWS:]:
        share = math.fsum(math.fsum(families[name].values()) for name in rest) / every
        time = math.fsum(times[name] for name in rest) / all_time
        table.add_row(f"{len(rest)} more", f"{share:.1%}", f"{time:.1%}", "", "", "")
    return table


def _quantile(members: Mapping[Problem, float], share: float) -> int:
    """The key length that ``share`` of the calls don't exceed."""
    wanted, seen = share * math.fsum(members.values()), 0.0
    ordered = sorted(members, key=lambda problem: problem.key_length)
    for problem in ordered:
        seen += members[problem]
        if seen >= wanted:
            return problem.key_length
    return ordered[-1].key_length


def _histogram(members: Mapping[Problem, float], bins: int = 16) -> str:
    """Calls over the key lengths from the shortest to the longest, a sign a bin."""
    lengths = [problem.key_length for problem in members]
    shortest, longest = min(lengths), max(lengths)
    if shortest == longest:
        return ""
    counts = [0.0] * bins
    for problem, number in members.items():
        counts[min(bins - 1, (problem.key_length - shortest) * bins // (longest - shortest))] += number
    return "".join(" " if not count else _SIGNS[round((len(_SIGNS) - 1) * count / max(counts))] for count in counts)


def _groups(groups: list[Group], unit: Unit) -> Table:
    from rich.table import Table

    columns = ("problem", f"per 1,000 {unit}", "est. time", "stands for", "off by")
    title = f"{len(groups)} problems stand for all"
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    total = math.fsum(group.seconds for group in groups)
    for group in groups:
        lengths = [problem.key_length for problem in group.members]
        covers = "itself" if len(group.members) == 1 else f"{len(group.members)}, Lk {min(lengths)} to {max(lengths)}"
        figures = (f"{group.weight:,.6g}", f"{group.seconds / total:.1%}", covers, f"{group.error:.1%}")
        table.add_row(group.problem.title, *figures)
    return table


def _print_json(asked: Asked, groups: list[Group]) -> None:
    import msgspec

    found = {
        "unit": asked.unit,
        "notes": asked.notes,
        "problems": [
            {"device": problem.device, "words": problem.title, "per_1000": number}
            for problem, number in asked.calls.items()
        ],
        "representatives": [
            {
                "words": group.problem.title,
                "per_1000": group.weight,
                "estimated_seconds": group.seconds,
                "error": group.error,
                "stands_for": [problem.title for problem in group.members],
            }
            for group in groups
        ],
    }
    documents.write_json(msgspec.json.format(msgspec.json.encode(found)).decode())
