"""The head of a report: which backend to run where, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pandas as pd

from rls_bench.choose import Decision, choose, gather
from rls_bench.report.results import Results
from rls_bench.report.tables import Column, Table, table


@dataclass(frozen=True)
class Decided:
    """The decisions for each machine, by its name in the report, and the older commits that none of them stands on."""

    decisions: dict[str, list[Decision]]
    older: tuple[str, ...]


def decided(results: Results) -> Decided:
    """The decisions that ``choose`` comes to."""
    names = {machine: name for name, machine in results.machines.items()}
    machines = gather(results.records)
    older = dict.fromkeys(commit for evidence in machines for commit in evidence.older)
    return Decided({names[evidence.machine]: choose(evidence) for evidence in machines}, tuple(older))


def lead(results: Results, verdict: Decided) -> str:
    """A sentence for each machine, and one on what is wrong."""
    sentences = []
    for name, decisions in verdict.decisions.items():
        chosen = Counter(found.backend for found in decisions if found.backend)
        ranked = [f"{backend} in {count} of {len(decisions)} regimes" for backend, count in chosen.most_common(3)]
        abstained = len(decisions) - sum(chosen.values())
        doubt = f"; the evidence is too thin in {abstained}" if abstained else ""
        sentences.append(f"On {name}, run {', '.join(ranked) or 'nothing yet'}{doubt}.")
    if verdict.older:
        commits = ", ".join(commit[:12] for commit in verdict.older)
        sentences.append(f"Of each cell the newest commit counts; left out: {commits}.")
    frame = results.latest.drop_duplicates(["machine", "work", "label"], keep="last")
    wrong = frame[frame["status"].isin(["wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory"])]
    if len(wrong):
        names = ", ".join(sorted(wrong["backend"].unique()))
        sentences.append(f"{len(wrong)} of {len(frame)} cells are wrong or broken: {names}; see the end.")
    return " ".join(sentences)


def verdicts(verdict: Decided) -> Table:
    """A row for each machine and regime."""
    rows = [
        {
            "machine": name,
            "regime": found.regime,
            "lengths": found.lengths,
            "backend": found.backend or "abstain",
            "margin": _percent(found.margin),
            "worst": _percent(found.worst_regret),
            "bound": _percent(found.regret_bound),
            "why": found.why if found.backend else f"{found.why}. Settle it: {found.settle}",
        }
        for name, decisions in verdict.decisions.items()
        for found in decisions
    ]
    columns = [
        Column("machine", "machine"),
        Column("regime", "regime"),
        Column("lengths", "key length"),
        Column("backend", "run", swatch=True),
        Column("margin", "next costs"),
        Column("worst", "worst regret"),
        Column("bound", "at most"),
        Column("why", "why"),
    ]
    return table(pd.DataFrame(rows, columns=[column.source for column in columns]), columns, "Verdict")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
