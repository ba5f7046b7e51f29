"""Records as tables: one for each problem, the backends under one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.record import Question, Record
    from rls_bench.statistics import Interval

FLOOR = "unsteered"
# Each of these says that a backend is broken, not that this machine or problem is beyond it.
BROKEN = ("wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory")
_STYLES = {"ok": "green", "unavailable": "dim", "unsupported": "dim", "throttled": "yellow"}


def by_problem(records: Iterable[Record]) -> list[list[Record]]:
    """Records of one run and problem together, in the order that they came."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.run, record.problem.key), []).append(record)
    return list(groups.values())


def table(records: Sequence[Record], noise_floor: float | None = None) -> Table:
    """The table of one problem; an A/A twin shows only as the noise floor of the caption."""
    from rich.table import Table

    shown = sorted((r for r in records if r.label == r.backend), key=_order)
    questions = _questions(shown)
    problem = shown[0].problem
    result = Table(title=f"{problem.name}: {problem.title}" if problem.name else problem.title, title_justify="left")
    result.add_column("backend", no_wrap=True)
    result.add_column("status", no_wrap=True)
    result.add_column("error\n× floor", justify="right")
    for question in questions:
        result.add_column(f"{question}\nms", justify="right", no_wrap=True)
    result.add_column("×\nunsteered", justify="right")
    result.add_column("peak\nMiB", justify="right")
    result.add_column("compile\ns", justify="right")
    result.add_column("note", ratio=1)

    floor = next((_latency(r, questions[0]) for r in shown if r.backend == FLOOR), None) if questions else None
    for record in shown:
        status = f"[{_STYLES.get(record.status, 'bold red')}]{record.status}[/]"
        latencies = [_latency(record, question) for question in questions]
        result.add_row(
            record.backend,
            status,
            _times_floor(record),
            *(_milliseconds(latency) for latency in latencies),
            f"{latencies[0].median / floor.median:.2f}" if floor and latencies and latencies[0] else "",
            "" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.0f}",
            "" if record.compile_seconds is None else f"{record.compile_seconds:.1f}",
            _note(record),
        )
    if noise_floor is not None:
        result.caption = f"noise floor {noise_floor:.1%}: a smaller difference is none"
        result.caption_justify = "left"
    return result


def verdict(records: Sequence[Record], noise_floor: float | None = None) -> str:
    """One line: the fastest correct backend of one problem, and what it cannot be told from."""
    problem = records[0].problem
    questions = _questions(records)
    timed = sorted(
        (latency.median, record.backend)
        for record in records
        if record.label == record.backend and record.backend != FLOOR and record.status == "ok" and questions
        if (latency := _latency(record, questions[0])) is not None
    )
    where = f"{problem.name}, {problem.title}" if problem.name else problem.title
    if not timed:
        return f"{where}: no correct backend was timed"
    best_ns, best = timed[0]
    tied = [name for median, name in timed[1:] if median <= best_ns * (1 + (noise_floor or 0.0))]
    floor = next((_latency(r, questions[0]) for r in records if r.backend == FLOOR and r.label == FLOOR), None)
    cost = f", {best_ns / floor.median:.2f} × unsteered" if floor else ""
    same = f" (not to be told from {', '.join(tied)})" if tied else ""
    return f"{where}: fastest correct backend is {best}, {best_ns / 1e6:.3g} ms{cost}{same}"


def _questions(records: Sequence[Record]) -> list[Question]:
    order: tuple[Question, ...] = ("warm", "cold", "graph", "host")
    return [question for question in order if any(record.samples_ns.get(question) for record in records)]


def _latency(record: Record, question: Question) -> Interval | None:
    from rls_bench.statistics import median_interval

    launches = [samples for samples in record.samples_ns.get(question, []) if samples]
    return median_interval(launches) if launches else None


def _milliseconds(latency: Interval | None) -> str:
    return "" if latency is None else f"{latency.median / 1e6:.3g} ±{latency.half_width:.1%}"


def _times_floor(record: Record) -> str:
    agreement = record.agreement
    return "" if agreement is None or agreement.ratio is None else f"{agreement.ratio:.2f}"


def _note(record: Record) -> str:
    from rich.markup import escape

    parts = [record.reason]
    if record.stopped in ("budget", "raced"):
        parts.append({"budget": "stopped by the budget", "raced": "stopped early, far behind"}[record.stopped])
    if record.rejected:
        parts.append(f"{record.rejected} throttled samples rejected")
    return escape("; ".join(part for part in parts if part))


def _order(record: Record) -> tuple[bool, bool, float, str]:
    """The floor first, then measured backends from fast to slow, then the rest by name."""
    questions = _questions([record])
    latency = _latency(record, questions[0]) if questions else None
    return record.backend != FLOOR, latency is None, latency.median if latency else 0.0, record.backend
