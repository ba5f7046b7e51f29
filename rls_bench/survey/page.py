"""The page and the table that a survey ends with, made from what its stages left; what is missing says why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rls_bench.problems.problem import Problem
from rls_bench.records import record
from rls_bench.records.record import Question, Record
from rls_bench.records.statistics import median_interval
from rls_bench.survey import rows
from rls_bench.survey.measuring import records
from rls_bench.survey.stages import STAGES

_MISSING = "–"
_FAULTS = ("wrong", "wrong backend", "failed", "crashed", "timeout", "out_of_memory", "throttled")
_MOST_LINES = 40


class Line(NamedTuple):
    """One problem: the fastest right backend and its figures; None where a figure is missing."""

    problem: str
    winner: str | None
    latency_us: float | None
    question: str
    over_unsteered: float | None
    peak_percent: float | None
    bound_by: str
    l2_hit_percent: float | None
    l2_modelled_percent: float | None
    joules: float | None


def winner(out: Path, problem: Problem) -> str | None:
    """The fastest backend that steers and is right on ``problem``, by the records so far."""
    return _fastest([entry for entry in _read(out) if entry.problem.key == problem.key])[0]


def table(out: Path) -> list[Line]:
    """A line for every problem that was measured, in the order in which they were."""
    by_problem: dict[str, list[Record]] = {}
    for entry in _read(out):
        by_problem.setdefault(entry.problem.key, []).append(entry)
    profiles = {(row["problem"], row["backend"]): row for row in rows.read(out / "profile.jsonl")}
    return [_line(entries, profiles) for entries in by_problem.values()]


def faults(out: Path) -> list[str]:
    """Everything that went wrong, a line each: stages, cases, cells, and what the memory checker saw."""
    found = [
        f"stage {row['stage']}: {row['status']}" + (f": {row['reason']}" if row["reason"] else "")
        for row in _last_words(out)
        if row["status"] not in ("ok", "not here")
    ]
    for stage in ("agreement", "conformance"):
        found += [
            f"{row['backend']}, {row['case']}: {row['status']}: {row['reason']}"
            for row in rows.read(out / f"{stage}.jsonl")
            if row["status"] in _FAULTS
        ]
    found += [
        f"{entry.label}, {entry.problem.title}: {entry.status}: {entry.reason}"
        for entry in _read(out)
        if entry.status in _FAULTS
    ]
    found += [
        f"memory checker, {row['problem']}: {row['fault']}" for row in rows.read(out / "memory.jsonl") if row["fault"]
    ]
    return list(dict.fromkeys(found))


def right(out: Path) -> list[tuple[str, int, int, int, str]]:
    """Each backend's cases over both stages: right, declined, not right, and why where it was not asked at all."""
    counts: dict[str, list[int]] = {}
    why: dict[str, str] = {}
    for stage in ("agreement", "conformance"):
        for row in rows.read(out / f"{stage}.jsonl"):
            mine = counts.setdefault(row["backend"], [0, 0, 0])
            if row["status"] == "unavailable":
                why[row["backend"]] = row["reason"]
            else:
                mine[{"ok": 0, "unsupported": 1}.get(row["status"], 2)] += 1
    return [(name, *counted, "" if any(counted) else why.get(name, "")) for name, counted in sorted(counts.items())]  # type: ignore[misc]


def markdown(out: Path) -> str:
    """The page: the machine, who is right, who wins, what went wrong."""
    machine = next((entry.machine for entry in _read(out)), None)
    parts = ["# Survey", ""]
    if machine is not None:
        versions = {"Python": machine.python, "torch": machine.torch, "triton": machine.triton, "CUDA": machine.cuda}
        versions |= {"driver": machine.driver}
        said = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        parts += [f"{machine.title}; {said}; fingerprint {machine.fingerprint}.", ""]
    parts += ["## Who wins", "", *_table(TITLES, [cells(line) for line in table(out)]), ""]
    parts += [
        "L2 is Nsight Compute's, from cold caches; L2 model is a replay of our kernel's tiles, no measurement.",
        "",
    ]
    titles = ("backend", "right", "declined", "not right", "")
    parts += ["## Who is right", "", *_table(titles, [[str(word) for word in row] for row in right(out)]), ""]
    found = faults(out)
    parts += ["## What went wrong", "", *(f"- {line}" for line in found[:_MOST_LINES] or ["nothing"])]
    if len(found) > _MOST_LINES:
        parts += [f"- {len(found) - _MOST_LINES} more in the files beside this page"]
    stages = [[row["stage"], row["status"], f"{row['seconds']:.0f}", row["reason"]] for row in _last_words(out)]
    parts += ["", "## Stages", "", *_table(("stage", "ended", "seconds", ""), stages), ""]
    return "\n".join(parts)


TITLES = ("problem", "fastest", "µs", "asked", "× unsteered", "% of ceiling", "bound by", "L2 %", "L2 model %", "mJ")


def cells(line: Line) -> list[str]:
    """The words of one line of the table."""
    return [
        line.problem,
        line.winner or _MISSING,
        _number(line.latency_us, 1),
        line.question or _MISSING,
        _number(line.over_unsteered, 2),
        _number(line.peak_percent, 0),
        line.bound_by or _MISSING,
        _number(line.l2_hit_percent, 1),
        _number(line.l2_modelled_percent, 1),
        _number(None if line.joules is None else 1e3 * line.joules, 2),
    ]


def _line(entries: list[Record], profiles: dict[tuple[str, str], rows.Row]) -> Line:
    name, question = _fastest(entries)
    problem = entries[0].problem
    best = next((entry for entry in entries if entry.backend == name and _latency(entry, question) is not None), None)
    plain = [entry for entry in entries if entry.backend == "unsteered"]
    floor = min((took for entry in plain if (took := _latency(entry, question)) is not None), default=None)
    took = None if best is None else _latency(best, question)
    probes = [entry.probes for entry in entries if entry.backend == name]

    def figure(probe: str, measure: str) -> float | None:
        values = [found.get(probe, {}).get(measure) for found in probes]
        return next((float(value) for value in values if isinstance(value, (int, float))), None)

    bound = next((str(found["roofline"].get("bound_by", "")) for found in probes if "roofline" in found), "")
    seen = profiles.get((problem.title, name or ""), {})
    return Line(
        problem=problem.title,
        winner=name,
        latency_us=None if took is None else took / 1e3,
        question=question or "",
        over_unsteered=None if took is None or floor is None else took / floor,
        peak_percent=figure("roofline", "peak_percent"),
        bound_by=bound,
        l2_hit_percent=_rate(seen.get("ncu", {})),
        l2_modelled_percent=figure("model", "l2_hit_rate_percent") or _rate(seen.get("model", {})),
        joules=figure("nvml", "joules_per_call"),
    )


def _fastest(entries: list[Record]) -> tuple[str | None, Question | None]:
    """The fastest backend that steers, by the first question that any of them answered."""
    steering = [entry for entry in entries if entry.status == "ok" and entry.backend != "unsteered"]
    questions: tuple[Question, ...] = ("graph", "warm")
    for question in questions:
        timed = [(took, entry.backend) for entry in steering if (took := _latency(entry, question)) is not None]
        if timed:
            return min(timed)[1], question
    return None, None


def _latency(entry: Record, question: Question | None) -> float | None:
    samples = entry.samples_ns.get(question) if question else None
    return median_interval(samples).median if samples else None


def _rate(measures: rows.Row) -> float | None:
    value = measures.get("l2_hit_rate_percent")
    return float(value) if isinstance(value, (int, float)) else None


def _read(out: Path) -> list[Record]:
    # Those over several launches come last, and speak first.
    return [entry for path in reversed(records(out)) for entry in record.read(path)]


def _last_words(out: Path) -> list[rows.Row]:
    last = {row["stage"]: row for row in rows.read(out / "stages.jsonl")}
    return [last[stage.name] for stage in STAGES if stage.name in last]


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:,.{digits}f}"


def _table(titles: tuple[str, ...], lines: list[list[str]]) -> list[str]:
    escaped = [[word.replace("|", "\\|").replace("\n", " ") for word in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in ([*titles], ["---"] * len(titles), *escaped)]
