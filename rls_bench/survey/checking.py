"""The stages that ask who is right: every backend on cases, each in a process of its own, several side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rls_bench.backends import asking, registry
from rls_bench.problems.problem import Problem
from rls_bench.runner import isolated
from rls_bench.survey import rows

if TYPE_CHECKING:
    from rls_bench.survey.work import Task

# A worker holds a context of a few hundred MiB on the GPU; the oracle wants a few cores.
_MOST_WORKERS = {"cuda": 6, "cpu": 2}
# Cases of one backend that one process checks before another backend has its turn.
_PIECE = {"cuda": 15, "cpu": 5}


def branches(task: Task) -> str:
    """The cases that reach every branch of a GPU's launchers."""
    from rls_bench.agreement import branches as cases

    return _check(task, "agreement", cases.cases(task.device))


def small(task: Task) -> str:
    """The small cases, which hold what users may rely on."""
    from rls_bench.agreement import conformance

    return _check(task, "conformance", conformance.all_cases(task.device))


def _check(task: Task, stage: str, problems: Sequence[Problem]) -> str:
    """Check all backends that can do any of ``problems``; what is left at the deadline, in one line."""
    path, lock = task.out / f"{stage}.jsonl", threading.Lock()
    todo = _todo(problems, path)

    def work(name: str, piece: Sequence[Problem]) -> int:
        done = 0
        if task.left > 0:
            for outcome in isolated.check(name, piece, task.deadline):
                with lock:
                    rows.append(path, {"backend": name, **asdict(outcome)})
                done += 1
        return done

    pieces = list(_dealt(todo, _PIECE[task.device]))
    workers = max(1, min(_MOST_WORKERS[task.device], os.cpu_count() or 1, len(pieces)))
    with ThreadPoolExecutor(workers) as pool:
        done = sum(pool.map(lambda piece: work(*piece), pieces))
    total = sum(map(len, todo.values()))
    return f"{total - done} of {total} cases are left" if done < total else ""


def _dealt(todo: dict[str, list[Problem]], size: int) -> Iterator[tuple[str, list[Problem]]]:
    """Pieces of every backend's cases, the first of each before the second of any; so the deadline cuts what tells
    least."""
    for start in range(0, max(map(len, todo.values()), default=0), size):
        for name, problems in todo.items():
            if piece := problems[start : start + size]:
                yield name, piece


def _todo(problems: Sequence[Problem], path: Path) -> dict[str, list[Problem]]:
    """Cases not checked yet, by backend: ours first, what is only interpreted last.

    A backend that can't be had gets a row that says so.
    """
    from rls_bench.agreement.conformance import declines_all
    from rls_bench.errors import BackendError

    known = {(row["backend"], row["case"]) for row in rows.read(path)}
    found, slow = dict[str, list[Problem]](), dict[str, list[Problem]]()
    for name in sorted(registry.names(), key=lambda name: (name not in ("triton", "cpu"), name)):
        try:
            backend = registry.get(name)
            available = asking.available(backend)
            refusal = declines_all(backend, problems) if available else available.reason
        except BackendError as error:
            refusal = str(error)
        if refusal:
            if (name, "") not in known:
                rows.append(path, {"backend": name, "case": "", "status": "unavailable", "reason": refusal})
            continue
        todo = [problem for problem in problems if (name, problem.name) not in known]
        (found if asking.measurable(backend) else slow)[name] = todo
    return found | slow
