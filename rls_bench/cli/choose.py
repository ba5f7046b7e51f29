"""``rls-bench choose FILE…``: which backend to run in production, for each regime of each machine."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rls_bench.cli import documents, next_step, outputs, traffic_time

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.choose import Decision, Evidence
    from rls_bench.cli.traffic_time import Served
    from rls_bench.policy.file import Policy
    from rls_bench.records.record import Skipped

_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class Objective(str, Enum):
    """What the choice has least of."""

    latency = "latency"
    energy = "energy"
    error = "error"


class Question(str, Enum):
    """Which latency counts."""

    warm = "warm"
    cold = "cold"
    graph = "graph"
    host = "host"


def size(value: str) -> int:
    """``2GiB``, ``500 MB`` or a plain number of bytes."""
    digits = value.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = value[len(digits) :].strip().upper().removesuffix("YTES")
    try:
        return int(float(digits) * _UNITS["" if unit == "B" else unit])
    except (KeyError, ValueError):
        raise typer.BadParameter(f"wanted a size such as 2GiB; got {value!r}") from None


def choose(
    files: Annotated[list[Path], typer.Argument(help="Results files, stores or fleet folders.")],
    max_error: Annotated[float | None, typer.Option(help="Greatest relative error against float64.", min=0.0)] = None,
    max_memory: Annotated[str | None, typer.Option(help="Most memory at the peak: 2GiB.")] = None,
    objective: Annotated[Objective, typer.Option(help="What to have least of.")] = Objective.latency,
    question: Annotated[Question, typer.Option(help="Which latency counts.")] = Question.warm,
    workload: Annotated[
        Path | None, typer.Option(help="Weigh problems by their time in this workload file, and tell what it takes.")
    ] = None,
    today: Annotated[str, typer.Option(help="The backend that serves the workload today.")] = "",
    policy: Annotated[Path | None, typer.Option(help='Write the choice here, for backend="auto".')] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw latency against error and memory here: .png, .svg or .pdf.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One object a decision in place of the tables.")] = False,
) -> None:
    """Choose a backend for each machine and regime, or abstain and say which run would settle it."""
    limits = (max_error, None if max_memory is None else size(max_memory))
    outputs.check_file(policy, "--policy")
    outputs.check_picture(chart, "--chart")
    if today and not workload:
        raise typer.BadParameter("--today: wanted beside --workload; got none")
    from rls_bench.choose import Limits, as_policy, gather
    from rls_bench.choose import choose as decide_all
    from rls_bench.cli.console import Console
    from rls_bench.policy import file as policy_file
    from rls_bench.records import record

    skipped: list[record.Skipped] = []
    records = record.read_all(files, skipped)
    if not records:
        raise record.none_in(files, skipped)
    machines = gather(records, Limits(*limits), question.value)
    served = [traffic_time.served(evidence, workload, today) for evidence in machines] if workload else []
    machines = [one.traffic.evidence for one in served] or machines
    decided = [(evidence, decide_all(evidence, objective.value)) for evidence in machines]
    if chart:
        from rls_bench.choose import chart as charts

        drawn = charts.draw(chart, decided)
    kept: tuple[Policy, ...] = ()
    if policy:
        weighed = [(workload, one.workload.fingerprint) for one in served] if workload else [None] * len(decided)
        sections = [
            as_policy(*one, objective.value, policy, weight) for one, weight in zip(decided, weighed, strict=True)
        ]
        kept = policy_file.others(policy, sections)
        policy_file.write(policy, *sections, *kept)
    if json:
        _print_json(decided, skipped, served)
        return
    console = Console()
    for place, (evidence, decisions) in enumerate(decided):
        console.print(evidence.machine.title, style="bold")
        if evidence.older:
            commits = ", ".join(commit[:12] for commit in evidence.older)
            console.print(f"of each cell the newest commit counts; left out: {commits}", soft_wrap=True)
        console.print(_choices(decisions), _front(decisions))
        for name, reasons in _beyond(evidence).items():
            console.print(f"beyond the budget: {name}: {reasons}", soft_wrap=True)
        for decision in decisions:
            if decision.backend is None:
                where = f"{decision.regime}, {decision.lengths}: {decision.why}. Settle it: {decision.settle}"
                console.print(f"abstain: {where}", soft_wrap=True)
        if served:
            traffic_time.show(console, served[place], decisions)
    if chart:
        console.print(f"wrote {chart}" if drawn else f"no regime has a figure to draw: no {chart}", soft_wrap=True)
    if policy:
        several = f", a section for each of {len(decided)} machines" * (len(decided) > 1)
        beside = f"; {len(kept)} of other machines stay" * bool(kept)
        console.print(f"wrote {policy}{several}{beside}", soft_wrap=True)
    for bad in skipped:
        console.print(f"left out {bad.path}:{bad.line}: {bad.reason}", soft_wrap=True)
    every = [decision for _, decisions in decided for decision in decisions]
    console.print(f"next: {next_step.after_choice(every, files, policy)}", soft_wrap=True)


def _print_json(
    decided: Sequence[tuple[Evidence, list[Decision]]], skipped: Sequence[Skipped], served: Sequence[Served]
) -> None:
    """Every decision of every machine with its figures; relative figures are shares, 0.03 for 3 %."""
    import msgspec

    machines = [
        {
            "machine": evidence.machine.title,
            "decisions": [
                {
                    "regime": found.regime,
                    "key_lengths": sorted({cell.problem.key_length for cell in found.cells}),
                    "backend": found.backend,
                    "why": found.why,
                    "settle": found.settle,
                    "order": found.order,
                    "tied": found.tied,
                    "margin": found.margin,
                    "regret": found.regret,
                    "worst_regret": found.worst_regret,
                    "regret_bound": found.regret_bound,
                    "standings": found.standings,
                }
                for found in decisions
            ],
        }
        | ({"workload": traffic_time.as_json(served[place], decisions)} if served else {})
        for place, (evidence, decisions) in enumerate(decided)
    ]
    documents.write_json(msgspec.json.format(msgspec.json.encode({"machines": machines, "skipped": skipped})).decode())


def _choices(decisions: list[Decision]) -> Table:
    from rich.table import Table

    from rls_bench.records.escape import text

    table = Table(
        "regime", "key length", "choice", "next costs", "regret", "worst", "at most", "why", box=None, pad_edge=False
    )
    for found in decisions:
        figures = [_percent(value) for value in (found.margin, found.regret, found.worst_regret, found.regret_bound)]
        choice = text(found.backend or "abstain", "bold" if found.backend else "yellow")
        table.add_row(found.regime, found.lengths, choice, *figures, found.why if found.backend else "")
    return table


def _front(decisions: list[Decision]) -> Table:
    from rich.table import Table

    columns = ("regime", "key length", "backend", "latency", "energy", "error", "peak MiB", "Pareto")
    table = Table(*columns, title="Latency, energy, error and memory", title_justify="left", box=None, pad_edge=False)
    for found in decisions:
        for one in found.standings:
            energy = "" if one.energy is None else f"{one.energy:.2f} ×"
            error = "" if one.error is None else f"{one.error:.2g}"
            peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:.1f}"
            figures = (f"{one.latency:.2f} ×", energy, error, peak, "front" if one.on_front else "")
            table.add_row(found.regime, found.lengths, one.backend, *figures)
    return table


def _beyond(evidence: Evidence) -> dict[str, str]:
    """Who breaks a limit, and how on each problem."""
    found: dict[str, dict[str, list[str]]] = {}
    for cell in evidence.cells:
        for name in sorted(cell.beyond):
            found.setdefault(name, {}).setdefault(cell.refused[name], []).append(cell.problem.title)
    return {
        name: "; ".join(f"{reason} ({', '.join(titles)})" for reason, titles in reasons.items())
        for name, reasons in sorted(found.items())
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
