"""``rls-bench conformance [MODULE:ATTRIBUTE …]``: is a backend right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rls_bench.cli.console import Console

_COLOURS = {"ok": "green", "unsupported": "dim", "wrong": "red", "failed": "red"}


def conformance(
    backend: Annotated[
        list[str] | None,
        typer.Argument(help="MODULE:ATTRIBUTE or registered names; every one that can be measured here by default."),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the cases' tensors lie.")] = "cpu",
) -> None:
    """Check backends on the cases that every backend must get right. Exit codes: 0 conform, 1 not, 2 cannot run."""
    import sys

    # A backend under work lies in the working directory more often than in an installed package.
    sys.path.insert(0, "")
    from rls_bench.cli.console import Console

    console = Console()
    faults = sum(_faults(console, name, device) for name in backend or _measurable(console))
    if faults:
        raise typer.Exit(1)


def _measurable(console: Console) -> list[str]:
    """Registered backends that can be measured here; the reason of each that cannot is printed."""
    from rls_bench.backends import asking, registry
    from rls_bench.errors import BackendUnavailable

    chosen = []
    for name in registry.names():
        try:
            backend = registry.get(name)
            refusals = [answer.reason for answer in (asking.proven(backend), asking.measurable(backend)) if not answer]
        except BackendUnavailable as error:
            refusals = [str(error)]
        if refusals:
            console.print(f"{name}: not checked: {refusals[0]}", soft_wrap=True)
        else:
            chosen.append(name)
    return chosen


def _faults(console: Console, name: str, device: str) -> int:
    """Print the outcome of every case of one backend; how many do not conform."""
    import os
    from contextlib import suppress

    from rls_bench.agreement import conformance as suite
    from rls_bench.backends import asking, registry
    from rls_bench.backends.interface import Backend
    from rls_bench.errors import BackendUnavailable
    from rls_bench.escape import text

    backend = registry.find(name)
    # What is no backend has no such questions to be asked, and one that raises gives no answer; the suite's first case
    # tells of both.
    if isinstance(backend, Backend):
        with suppress(Exception, SystemExit):
            os.environ.update(backend.environment())
        if suite.check_interface(backend).holds and not (proven := asking.proven(backend)):
            raise BackendUnavailable(f"backend {name}: {proven.reason}")
    console.print(name, style="bold", soft_wrap=True)
    outcomes = []
    for outcome in suite.check(backend, device):
        outcomes.append(outcome)
        status = text(f"{outcome.status:12}", _COLOURS[outcome.status])
        console.print(status, f"{outcome.case:28}", outcome.reason, soft_wrap=True)
    faults = sum(not outcome.holds for outcome in outcomes)
    declined = sum(outcome.status == "unsupported" for outcome in outcomes)
    right = len(outcomes) - faults - declined
    console.print(f"{right} right, {declined} declined, {faults} not conforming")
    return faults
