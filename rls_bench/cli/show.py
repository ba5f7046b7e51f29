"""``rls-bench show``: the tables of runs that were recorded earlier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rls_bench.cli import documents

if TYPE_CHECKING:
    from rls_bench.records.latency import Latencies
    from rls_bench.records.record import Record
    from rls_bench.records.statistics import Interval


def show(
    files: Annotated[list[Path], typer.Argument(help="Results files, JSON lines.")],
    json: Annotated[bool, typer.Option("--json", help="The tables' figures, one object a table.")] = False,
) -> None:
    """Print the tables of recorded runs; lines that cannot be read are named and skipped."""
    from rls_bench.cli import tables
    from rls_bench.cli.console import Console
    from rls_bench.records import record
    from rls_bench.records.latency import Latencies

    skipped: list[record.Skipped] = []
    records = record.read_all(files, skipped)
    if json:
        import msgspec

        latencies = Latencies(records)
        found = {"tables": [_figures(group, latencies) for group in tables.by_problem(records)], "skipped": skipped}
        documents.write_json(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    console = Console()
    seen: set[str] = set()
    latencies = Latencies(records)
    for group in tables.by_problem(records):
        first = group[0]
        if first.run not in seen:
            seen.add(first.run)
            commit = f", commit {first.commit[:12]}" if first.commit else ""
            if first.commit_unknown:
                commit = f", commit unknown ({first.commit_unknown})"
            console.print(
                f"\nrun {first.run}, {first.created}, {first.machine.title}{commit}", style="bold", soft_wrap=True
            )
            for warning in first.warnings:
                console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
        tables.show(console, group, first.noise_floor, latencies)
        console.print(tables.verdict(group, first.noise_floor, latencies), soft_wrap=True)
    for bad in skipped:
        console.print(f"{bad.path}, line {bad.line}: skipped: {bad.reason}", style="yellow", soft_wrap=True)
    if not records:
        console.print("no records")


def _figures(group: list[Record], latencies: Latencies) -> dict[str, Any]:
    """One table: a run's records of one problem; times in nanoseconds, intervals of 95 %, null where unknown."""
    from rls_bench.cli import tables

    first = group[0]
    backends = [
        {
            "backend": one.backend,
            "status": one.status,
            "reason": one.reason,
            "error_over_floor": one.agreement.ratio if one.agreement else None,
            "latency_ns": {
                question: _ends(latencies.interval(one, question)) for question in tables.questions_of([one])
            },
            "peak_bytes": one.peak_bytes,
            "compile_seconds": one.compile_seconds,
        }
        for one in tables.without_twins(group)
    ]
    return {
        "run": first.run,
        "created": first.created,
        "machine": first.machine.title,
        "commit": first.commit,
        "problem": first.problem.title,
        "name": first.problem.name,
        "noise_floor": first.noise_floor,
        "verdict": tables.verdict(group, first.noise_floor, latencies),
        "backends": backends,
    }


def _ends(latency: Interval | None) -> dict[str, float | None] | None:
    if latency is None:
        return None
    low, high = (latency.low, latency.high) if latency.is_known else (None, None)
    return {"median": latency.median, "low": low, "high": high}
