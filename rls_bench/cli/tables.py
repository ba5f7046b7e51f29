"""Records as tables: one for each problem, the backends under one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.records.record import Question, Record
    from rls_bench.records.statistics import Interval

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


def show(console: Console, records: Sequence[Record], noise_floor: float | None = None) -> None:
    """Print the table of one problem and, under it, what each backend had to say."""
    console.print(_table(records, noise_floor))
    backends_by_note: dict[str, list[str]] = {}
    for record in sorted(without_twins(records), key=_order):
        for note in _notes(record):
            backends_by_note.setdefault(note, []).append(record.label)
    for note, backends in backends_by_note.items():
        line = f"  {', '.join(backends)}: {note}"
        console.print(line, soft_wrap=True, style="dim")


def _table(records: Sequence[Record], noise_floor: float | None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from rls_bench.escape import text

    shown = sorted(without_twins(records), key=_order)
    questions = questions_of(shown)
    problem = shown[0].problem
    result = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        title=f"{problem.name}: {problem.title}" if problem.name else problem.title,
        title_justify="left",
        caption=None if noise_floor is None else f"noise floor {noise_floor:.1%}: a smaller difference is none",
        caption_justify="left",
    )
    result.add_column("backend", no_wrap=True)
    result.add_column("status", no_wrap=True)
    result.add_column("error ×\nfloor", justify="right", no_wrap=True)
    for question in questions:
        result.add_column(f"{question}\nms", justify="right", no_wrap=True)
    for heading in ("× un-\nsteered", "peak\nMiB", "compile\ns"):
        result.add_column(heading, justify="right", no_wrap=True)

    floor = next((latency_of(r, questions[0]) for r in shown if r.backend == FLOOR), None) if questions else None
    for record in shown:
        latencies = [latency_of(record, question) for question in questions]
        result.add_row(
            record.backend,
            text(record.status, _STYLES.get(record.status, "bold red")),
            _times_floor(record),
            *(_milliseconds(latency) for latency in latencies),
            f"{latencies[0].median / floor.median:.2f}" if floor and latencies and latencies[0] else "",
            "" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.1f}",
            "" if record.compile_seconds is None else f"{record.compile_seconds:.1f}",
        )
    return result


def verdict(records: Sequence[Record], noise_floor: float | None = None) -> str:
    """One line: the fastest correct backend of one problem, and what it cannot be told from."""
    problem = records[0].problem
    questions = questions_of(records)
    timed = sorted(
        (latency.median, record.backend)
        for record in records
        if record.label == record.backend and record.backend != FLOOR and record.status == "ok" and questions
        if (latency := latency_of(record, questions[0])) is not None
    )
    where = f"{problem.name}, {problem.title}" if problem.name else problem.title
    if not timed:
        return f"{where}: no correct backend was timed"
    best_ns, best = timed[0]
    tied = [name for median, name in timed[1:] if median <= best_ns * (1 + (noise_floor or 0.0))]
    floor = next((latency_of(r, questions[0]) for r in records if r.backend == FLOOR and r.label == FLOOR), None)
    cost = f", {best_ns / floor.median:.2f} × unsteered" if floor else ""
    same = f" (not to be told from {', '.join(tied)})" if tied else ""
    return f"{where}: fastest correct backend is {best}, {_three_digits(best_ns / 1e6)} ms{cost}{same}"


def without_twins(records: Sequence[Record]) -> list[Record]:
    """Leaves out the A/A twin, which shows as the noise floor only."""
    return [record for record in records if record.label == record.backend]


def questions_of(records: Sequence[Record]) -> list[Question]:
    """The latencies that any of ``records`` was timed for, in the order of their columns."""
    order: tuple[Question, ...] = ("warm", "cold", "graph", "host")
    return [question for question in order if any(record.samples_ns.get(question) for record in records)]


def latency_of(record: Record, question: Question) -> Interval | None:
    """Its median and interval in nanoseconds; None where it has no samples."""
    from rls_bench.records.statistics import median_interval

    launches = [samples for samples in record.samples_ns.get(question, []) if samples]
    return median_interval(launches) if launches else None


def _milliseconds(latency: Interval | None) -> str:
    if latency is None:
        return ""
    percent = 100 * latency.half_width
    width = f"{percent:.1f}" if percent < 10 else f"{percent:.0f}" if percent < 100 else ">100"
    return f"{_three_digits(latency.median / 1e6)} ±{width}%"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _times_floor(record: Record) -> str:
    agreement = record.agreement
    return "" if agreement is None or agreement.ratio is None else f"{agreement.ratio:.2f}"


def _notes(record: Record) -> list[str]:
    """Its reason, why sampling ended before the interval was narrow, what was thrown away."""
    stops = {
        "budget": "the budget ended before the interval was narrow; --budget gives it longer",
        "raced": "more than 1.5 × the best beyond doubt, so that sampling ended early and the interval is wide",
    }
    notes = [f"{record.status}: {record.reason}" if record.reason else "", stops.get(record.stopped, "")]
    if record.rejected:
        notes.append(f"{record.rejected} throttled samples rejected")
    return [note for note in notes if note]


def _order(record: Record) -> tuple[bool, bool, float, str]:
    """The floor first, then measured backends from fast to slow, then the rest by name."""
    questions = questions_of([record])
    latency = latency_of(record, questions[0]) if questions else None
    return record.backend != FLOOR, latency is None, latency.median if latency else 0.0, record.backend
