"""Measure backends on problems: one warm process per backend and launch, taking turns, so that a fault stays its own.

Workers import this package too, so it must stay light: the session and its statistics load when a run starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rls_bench.runner.plan import Effort, Event, Plan, Summary

__all__ = ["Effort", "Event", "Plan", "Summary", "run", "unfinished"]


def run(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    progress: Callable[[Event], None] | None = None,
    glances: bool = False,
) -> Summary:
    """Carry out ``plan`` and append one record for each cell to ``out``.

    A journal beside ``out`` keeps every sample as it is taken. Ctrl-C ends the run early and keeps what was measured
    (``Summary.interrupted``). ``resume`` goes on with the journal that a killed run left beside ``out``; the plan must
    be that journal's own (``unfinished(out)`` returns it). ``glances``: tell ``progress`` early what little is known of
    the first problem, at the cost of a few turns where backends have long to compile.

    Before anything is started, raises UnknownBackend, RecordError where ``out`` or its journal cannot be written or
    there is nothing to resume, and RlsBenchError where the temporary folder is full. A backend's own faults never
    raise; they are statuses of its records.
    """
    from rls_bench.runner.session import Session

    return Session.open(plan, out, resume=resume, progress=progress, glances=glances).run()


def unfinished(out: Path) -> Plan | None:
    """The plan of the run beside ``out`` that was killed before it ended, or None; live runs don't count."""
    from rls_bench.runner import journal

    found = journal.abandoned(out)
    return journal.read(found)[0].plan if found else None
