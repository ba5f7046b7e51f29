"""A comparison as text for a terminal, JSON, Markdown, or GitHub's workflow annotations."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import msgspec
from rich.console import Group
from rich.table import Table

from rls_bench.compare.sources import Source
from rls_bench.compare.verdict import Comparison, Row
from rls_bench.records import escape

# GitHub shows ten annotations of a kind for each step, and cuts a summary at 1 MiB.
MOST_ANNOTATIONS = 10
MOST_ROWS = 200

_STYLE = {"BROKEN": "bold red", "SLOWER": "red", "AMBIGUOUS": "yellow", "FASTER": "green", "SAME": "dim"}
_COLUMNS = ("verdict", "problem", "backend", "latency", "base", "new", "new / base", "launches", "why")
_CYCLES = "cycles, new / base"


def text(comparison: Comparison) -> Group:
    """For a terminal: heading, the worst rows first, notes, and the verdict as the last line."""
    with_cycles = _has_cycles(comparison)
    table = Table(*_columns(with_cycles), box=None, header_style="bold", pad_edge=False)
    for row in comparison.rows[:MOST_ROWS]:
        verdict, *words = _words(row, with_cycles)
        table.add_row(escape.text(verdict, _STYLE.get(verdict, "")), *(escape.text(word) for word in words))
    heading = [escape.text(line) for line in _heading(comparison)]
    heading += [escape.text(line, "yellow") for line in comparison.cautions]
    return Group(
        *heading, table, *(escape.text(line) for line in [*_rest(comparison), *comparison.notes, summary(comparison)])
    )


def as_json(comparison: Comparison) -> str:
    """One object with every row; ratios are new / base, times in nanoseconds."""
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "base": _side(comparison.base),
                "new": _side(comparison.new),
                "threshold": comparison.threshold,
                "across_machines": comparison.across_machines,
                "exit_code": comparison.exit_code,
                "counts": comparison.counts,
                "strict": comparison.strict,
                "cautions": comparison.cautions,
                "notes": comparison.notes,
                "rows": [row._asdict() for row in comparison.rows],
            }
        )
    ).decode()


def markdown(comparison: Comparison) -> str:
    """A heading, the verdict, a table and the notes."""
    lines = ["## rls-bench compare", "", f"**{escape.markdown(summary(comparison))}**", ""]
    lines += [f"- {escape.markdown(line)}" for line in [*_heading(comparison), *comparison.cautions]]
    with_cycles = _has_cycles(comparison)
    columns = _columns(with_cycles)
    lines += ["", _line(columns), _line(["---"] * len(columns))]
    shown = comparison.rows[:MOST_ROWS]
    lines += [_line([escape.markdown(word) for word in _words(row, with_cycles)]) for row in shown]
    lines += [""] + [f"- {escape.markdown(note)}" for note in [*_rest(comparison), *comparison.notes]]
    return "\n".join(lines).rstrip() + "\n"


def annotations(comparison: Comparison) -> str:
    """GitHub workflow commands: an error for each slower or broken cell, a warning for each ambiguous or gone one."""
    lines = [_annotation("warning", "rls-bench compare", caution) for caution in comparison.cautions]
    for level, verdicts in (("error", ("BROKEN", "SLOWER")), ("warning", ("AMBIGUOUS", "GONE"))):
        rows = [row for row in comparison.rows if row.verdict in verdicts]
        shown = rows if len(rows) <= MOST_ANNOTATIONS else rows[: MOST_ANNOTATIONS - 1]
        lines += [_annotation(level, f"{row.verdict}: {row.backend}", _sentence(row)) for row in shown]
        if len(shown) < len(rows):
            lines.append(_annotation(level, "rls-bench", f"and {len(rows) - len(shown)} more; see the summary table"))
    lines.append(_annotation("notice", "rls-bench compare", summary(comparison)))
    return "\n".join(lines) + "\n"


def summary(comparison: Comparison) -> str:
    """``1 slower, 39 same (threshold 3 %)``."""
    counted = ", ".join(f"{count:,} {verdict.lower()}" for verdict, count in comparison.counts.items())
    strictly = ", strictly" if comparison.strict else ""
    return f"{counted or 'nothing to compare'} (threshold {comparison.threshold * 100:.3g} %{strictly})"


def _heading(comparison: Comparison) -> list[str]:
    lines = []
    if comparison.across_machines:
        lines.append("Across different machines: ratios tell the machines apart, not the commits.")
        if not _has_cycles(comparison):
            lines.append("Clock cycles are not known: rls-bench run --probe nvml measures the clock on a GPU.")
    for name, side in (("base", comparison.base), ("new", comparison.new)):
        machines = "; ".join(machine.title for machine in side.machines.values())
        lines.append(f"{name}: {side.path}, commit {side.commit}, {machines}")
    return lines


def _rest(comparison: Comparison) -> list[str]:
    hidden = len(comparison.rows) - MOST_ROWS
    return [f"and {hidden:,} more rows: --format json has them all"] if hidden > 0 else []


def _has_cycles(comparison: Comparison) -> bool:
    return any(row.cycles_ratio is not None for row in comparison.rows)


def _columns(with_cycles: bool) -> Sequence[str]:
    return (*_COLUMNS[:-2], _CYCLES, *_COLUMNS[-2:]) if with_cycles else _COLUMNS


def _words(row: Row, with_cycles: bool) -> Sequence[str]:
    cycles = ["" if row.cycles_ratio is None else f"{row.cycles_ratio:.3f}"] * with_cycles
    return (
        row.verdict,
        row.problem,
        row.backend,
        row.question,
        _milliseconds(row.base_ns),
        _milliseconds(row.new_ns),
        _ratio(row),
        *cycles,
        f"{row.base_launches}, {row.new_launches}" if row.ratio is not None else "",
        row.reason,
    )


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    if row.low is None or row.high is None:
        return f"{row.ratio:.3f}"
    digits = _digits(row)
    return f"{row.ratio:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"


def _digits(row: Row) -> int:
    """As many as it takes to see that a faster or slower cell is: 1.00040 [1.00039, 1.00041]."""
    if row.verdict not in ("FASTER", "SLOWER") or row.low is None or row.high is None:
        return 3
    least = min(abs(row.low - 1), abs(row.high - 1))
    return min(max(1 - math.floor(math.log10(max(least, 1e-9))), 3), 9)


def _milliseconds(elapsed_ns: float | None) -> str:
    return "" if elapsed_ns is None else f"{elapsed_ns / 1e6:.4g} ms"


def _sentence(row: Row) -> str:
    measured = f"{row.question} latency {_ratio(row)} of base" if row.ratio is not None else ""
    return f"{row.problem}: " + "; ".join(part for part in (measured, row.reason) if part)


def _annotation(level: str, title: str, message: str) -> str:
    return f"::{level} title={escape.github_property(title)}::{escape.github_data(message)}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _side(source: Source) -> dict[str, object]:
    return {
        "path": str(source.path),
        "commits": source.commits,
        "runs": source.runs,
        "machines": {fingerprint: asdict(machine) for fingerprint, machine in source.machines.items()},
        "skipped_lines": source.skipped,
    }
