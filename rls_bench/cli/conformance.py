"""``rls-bench conformance MODULE:ATTRIBUTE``: is a backend of one's own right?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def conformance(
    backend: Annotated[str, typer.Argument(help="MODULE:ATTRIBUTE of a backend, or a registered name.")],
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the cases' tensors lie.")] = "cpu",
) -> None:
    """Check a backend on the cases that every backend must get right. Exit codes: 0 conforms, 1 not, 2 cannot run."""
    import sys

    # A backend under work lies in the working directory more often than in an installed package.
    sys.path.insert(0, "")
    from rich.console import Console
    from rich.text import Text

    from rls_bench import conformance as suite
    from rls_bench.backends import registry
    from rls_bench.backends.interface import Backend
    from rls_bench.errors import BackendUnavailable

    loaded = registry.get(backend)
    # The interface is the suite's first case: what is no backend has no available() to ask.
    if isinstance(loaded, Backend) and not (available := loaded.available()):
        raise BackendUnavailable(f"backend {backend}: {available.reason}")
    console = Console()
    colours = {"ok": "green", "unsupported": "dim", "wrong": "red", "failed": "red"}
    outcomes = []
    for outcome in suite.check(loaded, device):
        outcomes.append(outcome)
        status = Text(f"{outcome.status:12}", style=colours[outcome.status])
        console.print(status, Text(f"{outcome.case:28}"), Text(outcome.reason), soft_wrap=True)
    faults = sum(not outcome.holds for outcome in outcomes)
    declined = sum(outcome.status == "unsupported" for outcome in outcomes)
    right = len(outcomes) - faults - declined
    console.print(f"{right} right, {declined} declined, {faults} not conforming", highlight=False)
    if faults:
        raise typer.Exit(1)
