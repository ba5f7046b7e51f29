"""The last stage: what follows from the records, as files that the other commands read."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from rls_bench.records import record
from rls_bench.runner import kin
from rls_bench.survey.conductor import NOTE
from rls_bench.survey.measuring import records

if TYPE_CHECKING:
    from rls_bench.survey.work import Task


def conclude(task: Task) -> str:
    """Policy, page of plots and baseline; whichever of them cannot be made is named, and the others are.

    What the page lacks here, its plots say, is noted and no fault.
    """
    files = [str(path) for path in records(task.out)]
    if not files:
        return "no records to conclude from"
    left, notes = [], []
    commands = {
        "policy": ["choose", *files, "--policy", str(task.out / "policy.json")],
        "report": ["report", *files, "--html", str(task.out / "report.html")],
    }
    for name, words in commands.items():
        line = [sys.executable, "-m", "rls_bench", *words]
        try:
            done = subprocess.run(kin.mortal(line), capture_output=True, text=True, timeout=max(1.0, task.left / 2))
        except subprocess.TimeoutExpired:
            left.append(f"no {name} in time")
            continue
        print(done.stdout, done.stderr)
        if done.returncode:
            left.append(f"no {name}: {done.stderr.strip().splitlines()[-1:]}")
        elif name == "report":
            notes += done.stderr.strip().splitlines()
    _keep_baseline(task)
    if notes and not left:
        print(NOTE + "; ".join(notes))
    return "; ".join(left)


def _keep_baseline(task: Task) -> None:
    """The launches with an A/A pair, under the name of this GPU or CPU: what a later commit is compared with."""
    found = task.out / "bench.records.jsonl"
    if not found.exists():
        return
    machine = next((entry.machine for entry in record.read(found)), None)
    if machine is not None:
        name = re.sub(r"[^a-z0-9]+", "-", (machine.gpu_name or machine.cpu_model).lower()).strip("-")
        (task.out / f"baseline.{name}.jsonl").write_bytes(found.read_bytes())
