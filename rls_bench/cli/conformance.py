"""``rls-bench conformance [MODULE:ATTRIBUTE …]``: is a backend right?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rls_bench.agreement.conformance import Outcome
    from rls_bench.backends.interface import Backend
    from rls_bench.cli.console import Console
    from rls_bench.problems.problem import Problem

_COLOURS = {"ok": "green", "unsupported": "dim", "wrong": "red", "failed": "red"}


def conformance(
    backend: Annotated[
        list[str] | None,
        typer.Argument(help="MODULE:ATTRIBUTE or registered names; every one that can be measured here by default."),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the cases' tensors lie.")] = "cpu",
    cases: Annotated[
        Literal["small", "branches", "all"],
        typer.Option(help="Some thirty small cases, those that reach every branch of a GPU's launchers, or both."),
    ] = "small",
) -> None:
    """Check backends on the cases that every backend must get right. Exit codes: 0 conform, 1 not, 2 cannot run.

    Several backends are each checked in a process of their own, so that a fault stays its own; one alone in this one.
    """
    from rls_bench.agreement import branches
    from rls_bench.agreement import conformance as suite
    from rls_bench.cli.console import Console

    console = Console()
    problems = suite.all_cases(device) if cases != "branches" else []
    problems += branches.cases(device) if cases != "small" else []
    names = backend or _measurable(console, problems)
    if sum(_faults(console, name, problems, alone=len(names) == 1) for name in names):
        raise typer.Exit(1)


def _measurable(console: Console, problems: list[Problem]) -> list[str]:
    """Registered backends that can do any of ``problems`` here; the reason of each that cannot is printed."""
    from rls_bench.agreement import conformance as suite
    from rls_bench.backends import asking, registry
    from rls_bench.errors import BackendUnavailable

    chosen = []
    for name in registry.names():
        try:
            backend = registry.get(name)
            refusals = [answer.reason for answer in (asking.proven(backend), asking.measurable(backend)) if not answer]
            refusal = refusals[0] if refusals else suite.declines_all(backend, problems)
        except BackendUnavailable as error:
            refusal = str(error)
        if refusal:
            console.print(f"{name}: not checked: {refusal}", soft_wrap=True)
        else:
            chosen.append(name)
    return chosen


def _faults(console: Console, name: str, problems: list[Problem], alone: bool) -> int:
    """Print the outcome of every case of one backend; how many do not conform."""
    import os
    from contextlib import suppress
    from functools import partial
    from itertools import chain

    from rls_bench.agreement import conformance as suite
    from rls_bench.backends import asking, registry
    from rls_bench.errors import BackendUnavailable
    from rls_bench.records.escape import text
    from rls_bench.runner import isolated

    backend = registry.get(name)
    # One that raises gives no answer; the suite's first case tells of it.
    with suppress(Exception, SystemExit):
        os.environ.update(backend.environment())
    if suite.check_interface(backend).holds and not (proven := asking.proven(backend)):
        raise BackendUnavailable(f"backend {name}: {proven.reason}")
    console.print(name, style="bold", soft_wrap=True)
    outcomes: list[Outcome] = []
    told: dict[str, str] = {}
    checked = suite.check(backend, problems, None if alone else partial(isolated.check, name))
    for outcome in chain(checked, _guarded(backend, problems) if alone else ()):
        outcomes.append(outcome)
        status = text(f"{outcome.status:12}", _COLOURS[outcome.status])
        console.print(status, f"{outcome.case:28}", _told_once(outcome, told), soft_wrap=True)
    faults = sum(not outcome.holds for outcome in outcomes)
    declined = sum(outcome.status == "unsupported" for outcome in outcomes)
    right = len(outcomes) - faults - declined
    console.print(f"{right} right, {declined} declined, {faults} not conforming")
    return faults


def _told_once(outcome: Outcome, told: dict[str, str]) -> str:
    """The outcome's reason, or the case that told it before; ``told`` keeps them by where they were raised."""
    if outcome.status != "failed":
        return outcome.reason
    # Sizes in a message differ from case to case, the place where it was raised does not.
    place = re.search(r"\([^()]+:\d+\)$", outcome.reason)
    key = place[0] if place else outcome.reason
    if key in told:
        return f"as in {told[key]!r}{f' {key}' if place else ''}"
    told[key] = outcome.case
    return outcome.reason


def _guarded(backend: Backend, problems: list[Problem]) -> Iterator[Outcome]:
    """Some of the cases once more, before a referee that the backend cannot reach."""
    from rls_bench.referee import Referee, guards

    with Referee() as referee:
        yield from guards.outcomes(backend, problems, referee)
