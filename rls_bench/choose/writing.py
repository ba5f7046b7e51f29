"""Writes decisions down as a policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rls_bench.choose.decision import Decision
from rls_bench.choose.evidence import Evidence, Objective
from rls_bench.policy import file as policy_file
from rls_bench.policy.file import Policy, Rule


def as_policy(evidence: Evidence, decisions: Sequence[Decision], objective: Objective, path: Path) -> Policy:
    """The policy of one machine, to be written to ``path``; abstentions are kept as rules without backends."""
    suites = " ".join(f"--suite {suite}" for suite in evidence.suites[-1:])
    run = " ".join(["rls-bench run", *([suites] if suites else []), "--out renewed.jsonl"])
    return Policy(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        machine=evidence.machine.title,
        validity=policy_file.validity(evidence.machine),
        commits=evidence.commits,
        objective=objective,
        renew=f"{run} && rls-bench choose renewed.jsonl --objective {objective} --policy {path}",
        rules=tuple(_rule(decision) for decision in decisions),
    )


def _rule(decision: Decision) -> Rule:
    first = decision.cells[0].problem
    return Rule(
        kind=policy_file.kind(first),
        head_dim=first.head_dim,
        value_dim=first.value_dim,
        measured=tuple(dict.fromkeys(policy_file.point(cell.problem) for cell in decision.cells)),
        backends=decision.order if decision.backend else (),
        why=decision.why if decision.backend else f"{decision.why}; to settle it: {decision.settle}",
        margin=decision.margin,
        worst_regret=decision.worst_regret,
    )
