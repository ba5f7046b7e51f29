"""Records as tables: one for each problem, the backends under one another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rls_bench.records.words import floor_in_words

if TYPE_CHECKING:
    from rich.table import Table

    from rls_bench.cli.console import Console
    from rls_bench.records.latency import Latencies
    from rls_bench.records.record import Question, Record
    from rls_bench.records.statistics import Interval

FLOOR = "unsteered"
# What a user of torch alone gets, the likeliest first: torch tries its fused kernels before what holds every score.
PLAIN_TORCH = ("sdpa-cpu", "sdpa-efficient", "sdpa-cudnn", "sdpa-math", "eager")
# Problems that have a table each; of more there is one line each, and the tables on demand.
FEW = 6
# Each of these says that a backend is broken, not that this machine or problem is beyond it.
BROKEN = ("wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory")
_STYLES = {"ok": "green", "unavailable": "dim", "unsupported": "dim", "throttled": "yellow"}


def by_problem(records: Iterable[Record]) -> list[list[Record]]:
    """Records of one run and problem together, in the order that they came."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.run, record.problem.key), []).append(record)
    return list(groups.values())


def show(
    console: Console,
    records: Sequence[Record],
    noise_floor: float | None = None,
    latencies: Latencies | None = None,
) -> None:
    """Print the table of one problem and, under it, what each backend had to say.

    ``latencies`` are those of the whole run: its other problems tell how far launches scatter.
    """
    console.print(_table(records, noise_floor, latencies or _latencies(records)))
    backends_by_note: dict[str, list[str]] = {}
    for record in sorted(without_twins(records), key=_order):
        for note in _notes(record):
            backends_by_note.setdefault(note, []).append(record.label)
    for note, backends in backends_by_note.items():
        line = f"  {', '.join(backends)}: {note}"
        console.print(line, soft_wrap=True, style="dim")


def glance(console: Console, records: Sequence[Record], caution: str) -> None:
    """Print the table of one problem of a run that goes on, and why to trust it no further."""
    console.print(_table(records, None, _latencies(records)))
    console.print(f"  preliminary: {caution}", soft_wrap=True, style="yellow")


def _table(records: Sequence[Record], noise_floor: float | None, latencies: Latencies) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from rls_bench.records.escape import text

    shown = sorted(without_twins(records), key=_order)
    questions = questions_of(shown)
    problem = shown[0].problem
    result = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        title=f"{problem.name}: {problem.title}" if problem.name else problem.title,
        title_justify="left",
        caption=_floors(records, noise_floor),
        caption_justify="left",
    )
    result.add_column("backend", no_wrap=True)
    result.add_column("status", no_wrap=True)
    result.add_column("error ×\nfloor", justify="right", no_wrap=True)
    for question in questions:
        result.add_column(f"{question}\nms", justify="right", no_wrap=True)
    for heading in ("× un-\nsteered", "peak\nMiB", "compile\ns"):
        result.add_column(heading, justify="right", no_wrap=True)

    floors = [latencies.interval(record, questions[0]) for record in shown if record.backend == FLOOR and questions]
    floor = next(iter(floors), None)
    for record in shown:
        timed = [latencies.interval(record, question) for question in questions]
        result.add_row(
            record.backend,
            text(record.status, _STYLES.get(record.status, "bold red")),
            _times_floor(record),
            *(_milliseconds(latency) for latency in timed),
            f"{timed[0].median / floor.median:.2f}" if floor and timed and timed[0] else "",
            "" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.1f}",
            "" if record.compile_seconds is None else f"{record.compile_seconds:.1f}",
        )
    return result


@dataclass(frozen=True)
class Judged:
    """The fastest correct backend of one problem, what it cannot be told from, and its cost over plain attention.

    ``over_today`` is its time over that of ``today``, the backend taken now; None and "" where that has no time.
    """

    backend: str
    milliseconds: float
    tied: list[str]
    over_floor: float | None
    today: str = ""
    over_today: float | None = None


def judged(
    records: Sequence[Record],
    noise_floor: float | None = None,
    latencies: Latencies | None = None,
    today: Sequence[str] = PLAIN_TORCH,
) -> Judged | None:
    """Of one problem; None where no correct backend was timed. The first of ``today`` that was is held against it.

    What cannot be told: where the 95 % interval of the ratio holds 1, or the ratio is within the noise floor. A backend
    that was raced out is slower for certain, and its few samples make it no winner.
    """
    questions = questions_of(records)
    latencies = latencies or _latencies(records)
    timed = sorted(
        (
            (latency, record)
            for record in records
            if record.label == record.backend and _competes(record) and record.status == "ok" and questions
            if (latency := latencies.estimate(record, questions[0])) is not None
        ),
        key=lambda found: (found[1].stopped == "raced", found[0].mean),
    )
    if not timed:
        return None
    best, fastest = timed[0]
    margin = 1 + (noise_floor or 0.0)
    tied = [
        record.backend
        for latency, record in timed[1:]
        if record.stopped != "raced" and ((over := latency.over(best).interval()).low <= 1 or over.median <= margin)
    ]
    floor = next((latencies.estimate(r, questions[0]) for r in records if r.backend == r.label == FLOOR), None)
    over_floor = math.exp(best.mean - floor.mean) if floor else None
    times = {record.backend: latency for latency, record in timed}
    now = next((name for name in today if name in times), "")
    over_today = math.exp(best.mean - times[now].mean) if now else None
    return Judged(fastest.backend, math.exp(best.mean) / 1e6, tied, over_floor, now, over_today)


def verdict(records: Sequence[Record], noise_floor: float | None = None, latencies: Latencies | None = None) -> str:
    """One line: the fastest correct backend of one problem, and what it cannot be told from."""
    problem = records[0].problem
    where = f"{problem.name}, {problem.title}" if problem.name else problem.title
    found = judged(records, noise_floor, latencies)
    if found is None:
        return f"{where}: no correct backend was timed"
    cost = "" if found.over_floor is None else f", {found.over_floor:.2f} × unsteered"
    same = f" (not to be told from {', '.join(found.tied)})" if found.tied else ""
    return f"{where}: fastest correct backend is {found.backend}, {_three_digits(found.milliseconds)} ms{cost}{same}"


def summary(
    groups: Sequence[Sequence[Record]],
    noise_floor: float | None,
    latencies: Latencies,
    today: Sequence[str] = PLAIN_TORCH,
) -> Table:
    """One line a problem, where a table for each would be too many to read; ``today`` as in ``judged``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns = ("problem", "fastest correct", "ms", "× today", "× unsteered", "not to be told from")
    result = Table(*columns, box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    result.padding = (0, 1, 0, 0)
    for records in groups:
        problem = records[0].problem
        where = f"{problem.name}: {problem.title}" if problem.name else problem.title
        found = judged(records, noise_floor, latencies, today)
        if found is None:
            result.add_row(where, "none was timed", "", "", "", "")
            continue
        cost = "" if found.over_floor is None else f"{found.over_floor:.2f}"
        gain = "" if found.over_today is None else f"{found.over_today:.2f} {found.today}"
        result.add_row(where, found.backend, _three_digits(found.milliseconds), gain, cost, ", ".join(found.tied))
    return result


def _competes(record: Record) -> bool:
    """Whether a backend does what is asked: plain attention is faster for leaving it out."""
    return record.backend != FLOOR and record.steers


def without_twins(records: Sequence[Record]) -> list[Record]:
    """Leaves out the A/A twin, which shows as the noise floor only."""
    return [record for record in records if record.label == record.backend]


def questions_of(records: Sequence[Record]) -> list[Question]:
    """The latencies that any of ``records`` was timed for, in the order of their columns."""
    order: tuple[Question, ...] = ("warm", "cold", "graph", "host")
    return [question for question in order if any(record.samples_ns.get(question) for record in records)]


def _latencies(records: Sequence[Record]) -> Latencies:
    from rls_bench.records.latency import Latencies

    return Latencies(records)


def _floors(records: Sequence[Record], noise_floor: float | None) -> str | None:
    """What differs by less is the same, for each question; nothing where there was no A/A pair."""
    floors = next((record.noise_floors for record in records if record.noise_floors), {})
    said = [f"{question} {floor_in_words(floor)}" for question, floor in floors.items()]
    if not said and noise_floor is not None:
        said = [floor_in_words(noise_floor)]
    return f"noise floor {', '.join(said)}: a smaller difference is none" if said else None


def _milliseconds(latency: Interval | None) -> str:
    if latency is None:
        return ""
    if not latency.is_known:
        # One launch, or a clock too coarse to tell samples apart.
        return f"{_three_digits(latency.median / 1e6)} ±?"
    percent = 100 * latency.half_width
    width = (
        "<0.1"
        if percent < 0.05
        else f"{percent:.1f}"
        if percent < 10
        else f"{percent:.0f}"
        if percent < 100
        else ">100"
    )
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
    if not record.steers and record.backend != FLOOR:
        notes.append("doesn't steer: it was judged at λ = 0, and is no winner")
    if record.rejected:
        notes.append(f"{record.rejected} throttled samples rejected")
    return [note for note in notes if note]


def _order(record: Record) -> tuple[bool, bool, float, str]:
    """The floor first, then measured backends from fast to slow, then the rest by name."""
    questions = questions_of([record])
    latency = _latencies([record]).estimate(record, questions[0]) if questions else None
    return record.backend != FLOOR, latency is None, latency.mean if latency else 0.0, record.backend
