"""Writes decisions down as a policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rls_bench.choose.decision import Decision, cost_of, problem_words
from rls_bench.choose.evidence import Cell, Evidence, Objective
from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Policy, Rule


def as_policy(
    evidence: Evidence,
    decisions: Sequence[Decision],
    objective: Objective,
    path: Path,
    workload: tuple[Path, str] | None = None,
) -> Policy:
    """The policy of one machine, to be written to ``path``; abstentions are kept as rules without backends.

    ``workload`` is the file whose problems were weighed, and its fingerprint.
    """
    words = problem_words(evidence.suites[-1]) if evidence.suites else []
    weighed = f" --workload {workload[0]}" if workload else ""
    run = " ".join(["rls-bench run", *words, "--out renewed.jsonl"])
    return Policy(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=evidence.machine.title,
        validity=policy_file.validity(evidence.machine),
        commits=evidence.commits,
        objective=objective,
        renew=f"{run} && rls-bench choose renewed.jsonl --objective {objective}{weighed} --policy {path}",
        workload=workload[1] if workload else "",
        rules=tuple(_rule(decision, objective) for decision in decisions),
    )


def _rule(decision: Decision, objective: Objective) -> Rule:
    first = decision.cells[0].problem
    points = [policy_file.point(cell.problem) for cell in decision.cells]
    measured = tuple(dict.fromkeys(points))
    names = dict.fromkeys(name for cell in decision.cells for name in cell.candidates)
    return Rule(
        kind=policy_file.kind(first),
        head_dim=first.head_dim,
        value_dim=first.value_dim,
        measured=measured,
        backends=decision.order if decision.backend else (),
        why=decision.why if decision.backend else f"{decision.why}; to settle it: {decision.settle}",
        margin=decision.margin,
        worst_regret=decision.worst_regret,
        regret_bound=decision.regret_bound,
        costs={
            name: tuple(
                _cost([cell for cell, at in zip(decision.cells, points, strict=True) if at == point], name, objective)
                for point in measured
            )
            for name in names
        },
    )


def _cost(cells: Sequence[Cell], name: str, objective: Objective) -> float | None:
    """The geometric mean over problems of the same sizes, which differ in λ or in their inputs."""
    found = [cost_of(cell.candidates[name], objective) if name in cell.candidates else None for cell in cells]
    known = [cost for cost in found if cost is not None]
    return math.exp(math.fsum(map(math.log, known)) / len(known)) if len(known) == len(found) else None
