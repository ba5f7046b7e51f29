"""``rls-bench show``: the tables of runs that were recorded earlier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rls_bench.cli import documents

if TYPE_CHECKING:
    from rls_bench.records.record import Record


def show(
    files: Annotated[list[Path], typer.Argument(help="Results files, JSON lines.")],
    json: Annotated[bool, typer.Option("--json", help="The tables' figures, one object a table.")] = False,
) -> None:
    """Print the tables of recorded runs; lines that cannot be read are named and skipped."""
    from rls_bench.cli import tables
    from rls_bench.cli.console import Console
    from rls_bench.records import record

    skipped: list[record.Skipped] = []
    records = [entry for path in files for entry in record.read(path, skipped)]
    if json:
        import msgspec

        found = {"tables": [_figures(group) for group in tables.by_problem(records)], "skipped": skipped}
        documents.write_json(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    console = Console()
    seen: set[str] = set()
    for group in tables.by_problem(records):
        first = group[0]
        if first.run not in seen:
            seen.add(first.run)
            commit = f", commit {first.commit[:12]}" if first.commit else ""
            console.print(
                f"\nrun {first.run}, {first.created}, {first.machine.title}{commit}", style="bold", soft_wrap=True
            )
        tables.show(console, group, first.noise_floor)
        console.print(tables.verdict(group, first.noise_floor), soft_wrap=True)
    for bad in skipped:
        console.print(f"{bad.path}, line {bad.line}: skipped: {bad.reason}", style="yellow", soft_wrap=True)
    if not records:
        console.print("no records")


def _figures(group: list[Record]) -> dict[str, Any]:
    """One table: a run's records of one problem; times in nanoseconds, intervals of 95 %."""
    from rls_bench.cli import tables

    first = group[0]
    backends = [
        {
            "backend": one.backend,
            "status": one.status,
            "reason": one.reason,
            "error_over_floor": one.agreement.ratio if one.agreement else None,
            "latency_ns": {question: tables.latency_of(one, question) for question in tables.questions_of([one])},
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
        "verdict": tables.verdict(group, first.noise_floor),
        "backends": backends,
    }
