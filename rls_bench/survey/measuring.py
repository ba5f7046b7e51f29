"""The stages that take time: the runner on the telling problems, once with probes, then over several launches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rls_bench.backends import registry
from rls_bench.errors import BackendError
from rls_bench.problems.problem import Problem
from rls_bench.runner import Plan, run, unfinished
from rls_bench.survey import telling as chosen

if TYPE_CHECKING:
    from rls_bench.survey.work import Task

# Of a stage's time, what sampling may take; starting and checking come on top.
_SAMPLING = 0.5
_LAUNCHES = 3
# One backend that hangs or compiles on and on must leave time for the others.
_LEAST_PATIENCE = 20.0


def telling(task: Task) -> str:
    """Every backend on the most telling problems, one launch, with every probe that costs little."""
    probes = ("nvml", "roofline", "model") if task.device == "cuda" else ("roofline",)
    return _measure(task, "telling", chosen.problems(task.device), launches=1, probes=probes, aa=False)


def bench(task: Task) -> str:
    """The first of them over several launches and with an A/A pair: what a baseline is made of."""
    return _measure(task, "bench", chosen.benched(task.device), launches=_LAUNCHES, probes=(), aa=True)


def records(out: Path) -> list[Path]:
    """The files of records that a survey has so far."""
    return [path for name in ("telling", "bench") if (path := out / f"{name}.records.jsonl").exists()]


def _measure(
    task: Task, suite: str, problems: Sequence[Problem], launches: int, probes: tuple[str, ...], aa: bool
) -> str:
    """Run, or go on with the run that was killed; an interrupt keeps what was measured."""
    path = task.out / f"{suite}.records.jsonl"
    plan = unfinished(path) if path.exists() or _has_journal(path) else None
    resume = plan is not None
    plan = plan or Plan(
        problems=list(problems),
        backends=_measurable(),
        suite=f"survey {suite}",
        launches=launches,
        budget_seconds=max(1.0, _SAMPLING * task.left),
        probes=probes,
        aa=aa,
        timeout_seconds=max(_LEAST_PATIENCE, task.left / 3),
        compile_timeout_seconds=max(_LEAST_PATIENCE, task.left / 3),
    )
    summary = run(plan, path, resume=resume)
    for warning in summary.warnings:
        print("warning:", warning)
    return "interrupted before every cell was measured" if summary.interrupted else ""


def _has_journal(path: Path) -> bool:
    return any(path.parent.glob(f"{path.name}.*.part"))


def _measurable() -> list[str]:
    """Backends that a latency can be had of here; the others are the agreement stage's to tell of."""
    names = []
    for name in registry.names():
        try:
            backend = registry.get(name)
            if backend.available() and backend.measurable():
                names.append(name)
        except BackendError:
            continue
    return names
