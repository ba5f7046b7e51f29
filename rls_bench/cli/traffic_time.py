"""What ``choose --workload`` tells of time: today's, each backend's, the policy's, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rls_bench.choose import Decision, Evidence, Total, Traffic
    from rls_bench.cli.console import Console
    from rls_bench.problems.workload import Workload
    from rls_bench.records.statistics import Estimate


@dataclass(frozen=True)
class Served:
    """A workload on one machine's evidence, and the backend that serves it today ("" where that wasn't said)."""

    path: Path
    workload: Workload
    traffic: Traffic
    today: str

    def totals(self, decisions: list[Decision]) -> list[Total]:
        """As ``choose.totals``."""
        from rls_bench.choose import totals

        return totals(self.traffic, decisions, self.today)


def served(evidence: Evidence, path: Path, today: str) -> Served:
    """The workload file ``path`` on ``evidence``. Raises typer.BadParameter where none of its problems was measured."""
    from rls_bench.choose import on
    from rls_bench.problems import workload as workloads

    device = next((cell.problem.device for cell in evidence.cells), "cpu")
    workload = workloads.read(path, device)
    traffic = on(evidence, workload)
    measured = f"measure them: rls-bench run --workload {path}"
    if not traffic.evidence.cells:
        raise typer.BadParameter(f"--workload: none of its {len(traffic.missing)} problems was measured; {measured}")
    names = {name for cell in traffic.evidence.cells for name in (*cell.candidates, *cell.refused)}
    if today and today not in names:
        raise typer.BadParameter(f"--today: wanted one that was measured, {', '.join(sorted(names))}; got {today!r}")
    return Served(path, workload, traffic, today)


def show(console: Console, one: Served, decisions: list[Decision]) -> None:
    """Print the table of totals, what wasn't measured, and whether a change pays."""
    from rich.table import Table

    totals = one.totals(decisions)
    base = totals[0] if one.today else None
    title = f"Time per 1,000 {one.workload.unit}"
    table = Table("", "time", "95 %", "× today" if base else "", "", title=title, title_justify="left", box=None)
    for total in totals:
        name = f"today, {total.name}" if total is base else total.name
        note = "unattainable: chosen after the fact" if total.name == "best of each" else _note(total)
        if total.time is None:
            table.add_row(name, "", "", "", note)
            continue
        found = total.time.interval()
        between = f"{duration(found.low)} to {duration(found.high)}" if found.is_known else "not known: one launch"
        table.add_row(name, duration(found.median), between, _times(base, total), note)
    console.print(table)
    if one.traffic.missing:
        console.print(
            f"not measured, and left out: {', '.join(problem.title for problem in one.traffic.missing)}; measure them: "
            f"rls-bench run --workload {one.path}",
            soft_wrap=True,
        )
    console.print(verdict(one, totals), soft_wrap=True)


def verdict(one: Served, totals: list[Total]) -> str:
    """Whether the policy pays against today's backend, or against the best single one; one line."""
    by_name = {total.name: total for total in totals}
    policy = by_name["policy"]
    single = [total for total in totals if total.name not in ("policy", "best of each") and total.time is not None]
    if policy.time is None:
        return f"abstain: the policy has no choice for all of it: {_lacks(policy)}"
    base = by_name.get(one.today) or min(single, key=lambda total: total.time.mean, default=None)  # type: ignore[union-attr]
    if base is None or base.time is None:
        return f"the policy serves it; no single backend does, {_lacks(base)}" if base else "only the policy serves it"
    what = f"today's {base.name}" if one.today else f"{base.name} alone, the quickest single backend"
    ratio = policy.over(base)
    assert ratio is not None
    found = ratio.interval()
    if policy.abstained > 1 - 1e-9:
        return "abstain: no regime has evidence enough; each one's line above says what would settle it"
    if _takes_one(policy, base.name):
        return f"keep {base.name}: the policy takes it throughout"
    if not (found.is_known and (found.low > 1 or found.high < 1)):
        launches = f"rls-bench run --workload {one.path} --launches 10"
        return f"abstain: the policy cannot be told from {what} ({_interval(found)} of its time). Settle it: {launches}"
    if found.low > 1:
        return f"keep {what}: the policy takes {_interval(found)} of its time"
    saved = math.exp(base.time.mean) - math.exp(policy.time.mean)
    return (
        f"the policy saves {1 - found.median:.1%} ({1 - found.high:.1%} to {1 - found.low:.1%}) of the time of {what}: "
        f"{duration(saved)} per 1,000 {one.workload.unit}"
    )


def as_json(one: Served, decisions: list[Decision]) -> dict[str, Any]:
    """The same figures, in nanoseconds per 1,000 of the unit; null where unknown."""
    totals = one.totals(decisions)
    base = totals[0] if one.today else None
    return {
        "fingerprint": one.workload.fingerprint,
        "unit": one.workload.unit,
        "today": one.today or None,
        "not_measured": [problem.title for problem in one.traffic.missing],
        "verdict": verdict(one, totals),
        "totals": [
            {
                "name": total.name,
                "time_ns": _ends(total.time),
                "over_today": _ends(total.over(base)) if base else None,
                "lacks": total.lacks,
                "abstained": total.abstained,
            }
            for total in totals
        ],
    }


def duration(nanoseconds: float) -> str:
    """``1.23 s``, ``45.6 ms``; minutes and hours as such."""
    for size, unit in ((3.6e12, "h"), (6e10, "min"), (1e9, "s"), (1e6, "ms")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds / 1e3:.3g} µs"


def _takes_one(policy: Total, name: str) -> bool:
    return {backend for backend, _ in policy.parts} == {name}


def _times(base: Total | None, total: Total) -> str:
    if base is None or total is base:
        return ""
    ratio = total.over(base)
    return "" if ratio is None else _interval(ratio.interval())


def _interval(found: Any) -> str:
    return f"{found.median:.3f}, {found.low:.3f} to {found.high:.3f}" if found.is_known else f"{found.median:.3f} ±?"


def _note(total: Total) -> str:
    if total.abstained and total.time is not None:
        return f"abstains on {total.abstained:.0%} of the time, where today's backend is taken on"
    return _lacks(total)


def _lacks(total: Total) -> str:
    return _reasons(total.lacks)


def _reasons(lacks: Mapping[str, float]) -> str:
    return "; ".join(f"{share:.0%} of the time: {why}" for why, share in lacks.items())


def _ends(found: Estimate | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    ends = found.interval()
    return {
        "median": ends.median,
        "low": ends.low if ends.is_known else None,
        "high": ends.high if ends.is_known else None,
    }
