"""``rls-bench policy check``: does the policy speak of the traffic that comes now, and what to measure next."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Action(str, Enum):
    """What to do with a policy."""

    check = "check"


def policy(
    action: Annotated[Action, typer.Argument(help="check: which share of a workload the policy covers.")],
    workload: Annotated[Path, typer.Option(help="New traffic: what record_workload wrote, or a workload file.")],
    policy: Annotated[Path | None, typer.Option(help="A policy [RLS_BENCH_POLICY, or the user's own].")] = None,
) -> None:
    """Say which share of new traffic a policy covers, and which run would cover the rest."""
    import os

    from rls_bench.cli import workload as workloads
    from rls_bench.cli.console import Console
    from rls_bench.policy import file as policy_file
    from rls_bench.policy import lookup
    from rls_bench.policy.coverage import coverage, to_measure
    from rls_bench.problems import workload as files

    path = policy or Path(os.environ.get(lookup.VARIABLE) or lookup.default_path())
    sections = policy_file.read_sections(path)
    found = sections[0]
    if len(sections) > 1:
        from rls_bench.machines import host

        found = policy_file.closest(sections, policy_file.validity(host.current()))
    device = next((rule.kind.device for rule in found.rules), "cpu")
    asked = workloads.read(workload, device)
    covered = coverage(found, asked.calls)
    console = Console()
    console.print(f"{path}: made {found.created} on {found.machine}", soft_wrap=True)
    if found.workload:
        same = workload.suffix == ".toml" and files.read(workload, device).fingerprint == found.workload
        console.print(
            f"chosen for workload {found.workload}" + (", which is this one" if same else ", which is another"),
            soft_wrap=True,
        )
    lines = {
        "covered": {**covered.measured, **covered.between},
        "  measured": covered.measured,
        "  between measured lengths": covered.between,
        "abstained, so the built-in rule serves": covered.abstained,
        "outside, so the built-in rule serves": covered.outside,
    }
    for words, part in lines.items():
        calls, time = covered.share(part)
        console.print(f"{words}: {calls:.1%} of calls, {time:.1%} of estimated time", soft_wrap=True)
    if wanted := to_measure(covered.outside):
        words = " ".join(f"--problem '{problem.title}'" for problem in wanted)
        console.print(f"measure next: rls-bench run {words} --out more.jsonl", soft_wrap=True)
        console.print(
            f"and choose from what made the policy and that: rls-bench choose RESULTS more.jsonl --policy {path}",
            soft_wrap=True,
        )
    if covered.abstained:
        why = {rule.why for rule in found.rules if not rule.backends}
        console.print(f"it abstains: {'; '.join(sorted(why))}", soft_wrap=True)
