"""``rls-bench profile``: what the hardware sees of one call, here or in a report made elsewhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rls_bench.cli import documents, problem_argument

if TYPE_CHECKING:
    from rls_bench.backends.interface import Call
    from rls_bench.probes.interface import Measures
    from rls_bench.problems.problem import Problem


class Format(str, Enum):
    """How the figures are written."""

    text = "text"
    json = "json"


def profile(
    backend: Annotated[str, typer.Argument(help="Backend to call.", show_default=False)] = "",
    problem: Annotated[str, typer.Option(help=problem_argument.HELP)] = "published",
    device: Annotated[str, typer.Option(help="cuda or cpu; cuda where torch has it.", show_default=False)] = "",
    probe: Annotated[
        list[str] | None, typer.Option(help="Probe to run, repeatable; ncu where none is named.", show_default=False)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--import", help="A .ncu-rep file, or either page of `ncu --csv`.", show_default=False),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Run probes on one call of BACKEND, or read a report that Nsight Compute wrote elsewhere (--import FILE)."""
    if bool(backend) == bool(report):
        raise typer.BadParameter("wanted a BACKEND to profile, or --import FILE")
    if report:
        figures = _imported(report)
    else:
        figures = _measured(backend, problem_argument.parse(problem, device or _default_device()), probe or ["ncu"])
    if output is Format.json:
        import json

        documents.write_json(json.dumps(figures, indent=2, allow_nan=False))
    else:
        _print_tables(figures)
        if report:
            _print_missing(figures)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _imported(path: Path) -> dict[str, Measures]:
    """Figures of each kernel in a report, under its number and name."""
    from rls_bench.probes import ncu, ncu_metrics

    return {
        f"{number}: {kernel.name}": {
            "compute_capability": kernel.compute_capability or None,
            **ncu_metrics.measures([kernel]),
        }
        for number, kernel in enumerate(ncu.read(path))
    }


def _measured(backend: str, problem: Problem, probes: list[str]) -> dict[str, Measures]:
    """Figures of each probe, under its name; every probe is asked first whether it can see anything at all."""
    import functools
    import os

    # Torch's profiler reports its own start and stop on stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from rls_bench.backends import registry as backends
    from rls_bench.backends.words import told
    from rls_bench.errors import BackendUnavailable, BackendUnsupported, ProbeUnavailable, ProfileError, RlsBenchError
    from rls_bench.probes import registry
    from rls_bench.probes.interface import finite
    from rls_bench.problems import draw
    from rls_bench.timing import training

    chosen = [registry.get(name) for name in probes]
    for each in chosen:
        if not (support := each.available()):
            raise ProbeUnavailable(f"probe {each.name}: {support.reason}")
    kernel = backends.get(backend)
    os.environ.update(kernel.environment())
    if not (support := kernel.available()):
        raise BackendUnavailable(f"backend {backend}: {support.reason}")
    if not (support := kernel.supports(problem)):
        raise BackendUnsupported(f"backend {backend}: {support.reason}")

    @functools.cache
    def prepared() -> Call:
        return training.prepared(kernel, draw.draw(problem))

    # Prepared by the first probe that calls it: those of Nsight prepare their own in another process.
    def call() -> Any:
        try:
            return prepared()()
        except RlsBenchError:
            raise
        except Exception as error:
            raise ProfileError(f"backend {backend}: its call failed: {told(error)}") from error

    return {each.name: finite(each.measure(call, backend, problem)) for each in chosen}


def _print_tables(figures: dict[str, Measures]) -> None:
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.probes import units

    console = Console()
    for title, measures in figures.items():
        console.print(title, style="bold", soft_wrap=True)
        table = Table()
        table.add_column("figure")
        table.add_column("value", justify="right")
        for name, value in measures.items():
            table.add_row(name, units.written(name, value))
        console.print(table)


def _print_missing(figures: dict[str, Measures]) -> None:
    """For each figure that a report lacks, the metric to collect, and the one command that collects them all."""
    from rls_bench.cli.console import Console
    from rls_bench.probes import ncu_metrics

    lacking: dict[str, list[str]] = {}
    for measures in figures.values():
        lacking |= ncu_metrics.missing(measures, str(measures.get("compute_capability") or ""))
    if not lacking:
        return
    console = Console()
    console.print("missing figures, and the ncu metrics that give them:", style="bold")
    for name, metrics in lacking.items():
        console.print(f"  {name}: {', '.join(metrics)}", soft_wrap=True)
    every = ",".join(dict.fromkeys(metric for metrics in lacking.values() for metric in metrics))
    console.print("collect them where the GPU is, with your own command at the end, and import the report:")
    console.print(f"  ncu --clock-control none --metrics {every} --export call.ncu-rep YOUR_COMMAND", soft_wrap=True)
    console.print("  rls-bench profile --import call.ncu-rep", soft_wrap=True)
