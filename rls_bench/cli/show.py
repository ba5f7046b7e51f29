"""``rls-bench show``: the tables of runs that were recorded earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(files: Annotated[list[Path], typer.Argument(help="Results files, JSON lines.")]) -> None:
    """Print the tables of recorded runs; lines that cannot be read are named and skipped."""
    from rich.console import Console

    from rls_bench.cli import tables
    from rls_bench.records import record
    from rls_bench.records.latency import Latencies

    console = Console()
    skipped: list[record.Skipped] = []
    records = [entry for path in files for entry in record.read(path, skipped)]
    seen: set[str] = set()
    latencies = Latencies(records)
    for group in tables.by_problem(records):
        first = group[0]
        if first.run not in seen:
            seen.add(first.run)
            commit = f", commit {first.commit[:12]}" if first.commit else ""
            console.print(
                f"\n[bold]run {first.run}[/], {first.created}, {first.machine.title}{commit}", highlight=False
            )
        tables.show(console, group, first.noise_floor, latencies)
        console.print(tables.verdict(group, first.noise_floor, latencies), highlight=False, soft_wrap=True)
    for bad in skipped:
        console.print(f"[yellow]{bad.path}, line {bad.line}: skipped: {bad.reason}[/]", soft_wrap=True)
    if not records:
        console.print("no records")
