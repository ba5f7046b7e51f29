"""The next command after a verdict, as it can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rls_bench.choose import Decision
    from rls_bench.compare import Comparison, Row

# Cells that one command asks about.
_MOST_CELLS = 4


def after_comparison(comparison: Comparison, measure: Sequence[str], report: Sequence[Path]) -> str:
    """What to do about the worst verdict of ``comparison``.

    ``measure`` are the words that measure cells again, their problems and backends left out; ``report`` the files that
    a report would show.
    """
    rows = comparison.rows
    for verdict in ("BROKEN", "SLOWER", "GONE", "AMBIGUOUS"):
        worst = [row for row in rows if row.verdict == verdict]
        if verdict == "GONE":
            worst = [row for row in worst if row.backend not in comparison.may_go]
        if not worst:
            continue
        device = _device(comparison, worst[0])
        if verdict == "BROKEN":
            return _line("rls-bench", "conformance", worst[0].backend, "--device", device)
        if verdict == "SLOWER":
            words = ("--problem", worst[0].problem, "--device", device, "--probe", "memory", "--probe", "roofline")
            return _line("rls-bench", "profile", worst[0].backend, *words)
        return _line(*measure, *_cells(worst[:_MOST_CELLS]))
    return _line("rls-bench", "report", *map(str, report), "--html", "report.html")


def after_choice(decisions: Sequence[Decision], files: Sequence[Path], policy: Path | None) -> str:
    """The run that settles what was left open, or the policy to write, or the page that shows the evidence."""
    for decision in decisions:
        if decision.backend is None and decision.settle.startswith("rls-bench "):
            return decision.settle
    named = map(str, files)
    if policy is None and any(decision.backend for decision in decisions):
        return _line("rls-bench", "choose", *named, "--policy", "policy.json")
    return _line("rls-bench", "report", *named, "--html", "report.html")


def _cells(rows: Sequence[Row]) -> list[str]:
    """The problems and backends of ``rows``, each once."""
    words = []
    for option, found in (("--problem", [row.problem for row in rows]), ("--backend", [row.backend for row in rows])):
        for each in dict.fromkeys(found):
            words += [option, each]
    return words


def _device(comparison: Comparison, row: Row) -> str:
    machine = comparison.new.machines.get(row.machine)
    return "cuda" if machine is not None and machine.gpu_name else "cpu"


def _line(*words: str) -> str:
    return shlex.join(words)
