"""What a report says, part by part: a lead sentence, a plot, and the table behind it; or why there is nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from rls_bench.records.flips import flips
from rls_bench.records.words import floor_in_words
from rls_bench.report.palette import FLOOR
from rls_bench.report.panels import has_one, panels
from rls_bench.report.results import Results
from rls_bench.report.tables import Column, Table, table
from rls_bench.report.verdict import decided, lead, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Which latency the plots show: the first of these that was measured; the tables have them all.
_QUESTIONS = ("warm", "graph", "cold", "host")


@dataclass(frozen=True)
class Section:
    """``draw`` makes the plot, None where there is nothing to draw; ``lead`` says what to see, or what is missing.

    ``draw`` raises ImportError where seaborn or matplotlib cannot be imported.
    """

    name: str
    title: str
    lead: str
    draw: Callable[[], Figure] | None = None
    tables: list[Table] = field(default_factory=list)
    # Whether the table is the message itself and not what lies behind a plot.
    is_table: bool = False


def sections(results: Results) -> list[Section]:
    """All parts in order; the verdict comes first."""
    timed, verdict = _timed(results), decided(results)
    return [
        Section("verdict", "Verdict", lead(results, verdict), tables=[verdicts(verdict)], is_table=True),
        Section("machines", "Machines", "", tables=[_machines(results)], is_table=True),
        _latency(results, timed),
        _steering_cost(results, timed),
        _error(results),
        _speed_against_error(results, timed),
        _roofline(results, timed),
        _hit_rate(results),
        _energy(results, timed),
        *_across_machines(timed),
        _not_ok(results),
    ]


def _figures() -> ModuleType:
    # Words and tables need nothing that draws, and are reported without it.
    from rls_bench.report import figures

    return figures


def _timed(results: Results) -> pd.DataFrame:
    """Rows with a latency, the A/A twins left out, under the first question that was asked."""
    frame = results.latest
    rows = frame[frame["latency_ns"].notna() & (frame["label"] == frame["backend"])]
    asked = [question for question in _QUESTIONS if (rows["question"] == question).any()]
    rows = rows[rows["question"] == asked[0]].copy() if asked else rows.copy()
    several = rows["machine"].nunique() > 1
    rows["panel"] = rows["machine"] + ": " + rows["family"] if several else rows["family"]
    return rows


_CELL = [Column("problem", "problem"), Column("backend", "backend", swatch=True)]
_TIMES = [
    Column("latency_ns", "median (ms)", scale=1e-6),
    Column("low_ns", "from", scale=1e-6),
    Column("high_ns", "to", scale=1e-6),
]


def _latency(results: Results, timed: pd.DataFrame) -> Section:
    title = "Latency" if has_one(timed, "key_length") else "Latency against sequence length"
    if timed.empty:
        return Section("latency", title, "No latency was measured.")
    frame = results.latest
    everything = frame[frame["latency_ns"].notna()]
    question = timed["question"].iloc[0]
    left_out = timed["panel"].nunique() - len(panels(timed, "panel"))
    words = f"Medians of {question} latency with 95 % intervals; lower is better."
    words += " Problems that differ in λ alone are drawn as one." * bool(timed["strength"].nunique() > 1)
    words += f" {left_out} families of problems more are in the table alone." * bool(left_out)
    columns = [Column("machine", "machine"), *_CELL, Column("label", "label"), Column("question", "latency"), *_TIMES]
    columns += [Column("launches", "launches"), Column("samples", "samples"), Column("rejected", "rejected")]
    behind = table(everything, columns, "Latency")
    return Section(
        "latency", title, words + _flips(results, everything), lambda: _figures().latency(timed, results.look), [behind]
    )


def _flips(results: Results, frame: pd.DataFrame) -> str:
    """Where another latency has another winner, it must not be taken for the same; where it only seems to, neither."""
    rows = frame[(frame["backend"] != FLOOR) & (frame["label"] == frame["backend"])]
    if rows["question"].nunique() < 2:
        return ""
    latest = {
        (entry.machine, entry.problem.key, entry.label): entry for entry in results.records if entry.backend != FLOOR
    }
    flipped = len({(flip.record.machine, flip.record.problem.key) for flip in flips(latest.values())})
    asked = ", ".join(sorted(rows["question"].unique()))
    problems = rows.groupby(["machine", "work"]).ngroups
    if not flipped:
        return f" On no problem does the winner differ between {asked} latency beyond doubt."
    return f" The winner differs between {asked} latency on {flipped} of {problems} problems, beyond doubt."


def _steering_cost(results: Results, timed: pd.DataFrame) -> Section:
    title = "What steering costs: × unsteered"
    rows = timed[timed["unsteered_ratio"].notna()]
    if rows.empty:
        return Section(
            "steering-cost",
            title,
            "Plain attention was not measured beside the others: run with --backend unsteered too.",
        )
    columns = [Column("machine", "machine"), *_CELL, Column("unsteered_ratio", "× unsteered")]
    columns += [Column("ratio_low", "from"), Column("ratio_high", "to")]
    words = "Latency over that of plain attention on the same problem; below the dashed line, steering is free."
    return Section(
        "steering-cost",
        title,
        words,
        lambda: _figures().steering_cost(rows, results.look),
        [table(rows, columns, "× unsteered")],
    )


def _error(results: Results) -> Section:
    title = "Error against λ"
    frame = results.latest
    rows = frame[frame["error"].notna() & (frame["backend"] != FLOOR) & (frame["label"] == frame["backend"])]
    rows = rows.drop_duplicates(["machine", "work", "backend"])
    if rows.empty:
        return Section("error", title, "No agreement figures were recorded.")
    strengths = sorted(rows["strength"].unique())
    words = "Relative error against float64; the dashed line is plain eager attention's own, the worst of all problems."
    if len(strengths) == 1:
        words += f" Only λ = {strengths[0]:g} was measured."
    columns = [Column("machine", "machine"), *_CELL, Column("strength", "λ"), Column("error", "error")]
    columns += [Column("error_floor", "floor"), Column("error_ratio", "× floor")]
    return Section("error", title, words, lambda: _figures().error(rows, results.look), [table(rows, columns, "Error")])


def _speed_against_error(results: Results, timed: pd.DataFrame) -> Section:
    title = "Speed against error"
    rows = timed[timed["error_ratio"].notna() & (timed["error_ratio"] > 0) & (timed["backend"] != FLOOR)].copy()
    if rows.empty:
        return Section("pareto", title, "No backend has both a latency and an error.")
    fastest = rows.groupby(["machine", "work"])["latency_ns"].transform("min")
    rows["latency_multiple"] = rows["latency_ns"] / fastest
    words = "One point for each problem and backend; nothing beats a point that has no other to its lower left."
    columns = [Column("machine", "machine"), *_CELL, Column("latency_multiple", "latency, × fastest")]
    columns += [Column("error_ratio", "error, × floor")]
    behind = table(rows, columns, "Speed and error")
    return Section("pareto", title, words, lambda: _figures().speed_against_error(rows, results.look), [behind])


def _roofline(results: Results, timed: pd.DataFrame) -> Section:
    title = "Roofline"
    if timed.empty:
        return Section("roofline", title, "No latency was measured.")
    words = "Achieved rate against the arithmetic intensity of the least traffic possible."
    under = timed[timed["panel"].isin(timed.loc[timed["ceiling_tflop_per_s"].notna(), "panel"])]
    if not under.empty:
        words += " The line is what a copy and a matrix product reached on the same machine."
    else:
        words = "No ceiling was measured, and without one there is no roof: run with --probe roofline."
    columns = [Column("machine", "machine"), *_CELL, Column("intensity_flop_per_byte", "FLOP/byte")]
    columns += [Column("tflop_per_s", "TFLOP/s"), Column("peak_percent", "% of the ceiling")]
    draw = None if under.empty else lambda: _figures().roofline(under, results.look)
    return Section("roofline", title, words, draw, [table(timed, columns, "Roofline")])


def _hit_rate(results: Results) -> Section:
    title = "L2 hit rate"
    frame = results.latest.drop_duplicates(["machine", "work", "label"], keep="last")
    parts = [
        frame.assign(hit_rate_percent=frame[column], source=source)
        for column, source in (
            ("l2_hit_rate_percent", "measured, GPU L2"),
            ("llc_hit_rate_percent", "measured, CPU last level"),
            ("model_l2_hit_rate_percent", "model"),
        )
    ]
    rows = pd.concat(parts)
    rows = rows[rows["hit_rate_percent"].notna()]
    if rows.empty:
        why = "Not measured: run with --probe ncu on a GPU, or --probe perf on a CPU that lets its counters be read."
        return Section("hit-rate", title, why)
    words = "Share of lookups that the cache served. Hollow points are a model's, filled ones were measured."
    columns = [
        Column("machine", "machine"),
        *_CELL,
        Column("source", "source"),
        Column("hit_rate_percent", "hit rate (%)"),
    ]
    return Section(
        "hit-rate", title, words, lambda: _figures().hit_rate(rows, results.look), [table(rows, columns, "Hit rate")]
    )


def _energy(results: Results, timed: pd.DataFrame) -> Section:
    title = "Energy"
    rows = timed[timed["joules"].notna() & (timed["joules"] > 0)]
    if rows.empty:
        return Section("energy", title, "Not measured: run with --probe nvml on a GPU that counts its energy.")
    columns = [Column("machine", "machine"), *_CELL, Column("joules", "J a call"), *_TIMES[:1]]
    words = "Joules a call, from the driver's counter over at least a second of calls."
    return Section(
        "energy", title, words, lambda: _figures().energy(rows, results.look), [table(rows, columns, "Energy")]
    )


def _across_machines(timed: pd.DataFrame) -> list[Section]:
    """Only where several machines ran the same problems."""
    rows = timed[timed["backend"] != FLOOR].copy()
    # The device is part of a problem; across machines it may differ.
    rows["shared"] = rows["work"].str.replace(r"device=\S+ ", "", regex=True)
    best = rows.loc[rows.groupby(["machine", "shared"])["latency_ns"].idxmin()]
    best = best[best.groupby("shared")["machine"].transform("nunique") > 1]
    if best.empty:
        return []
    best["seconds"] = best["latency_ns"] * 1e-9
    best = best.sort_values(["generation", "machine"], kind="stable")
    columns = [
        Column("problem", "problem"),
        Column("generation", "generation"),
        Column("machine", "machine"),
        Column("backend", "fastest", swatch=True),
        *_TIMES,
    ]
    behind = table(best.sort_values(["problem", "generation", "latency_ns"]), columns, "Across machines")
    words = "The fastest backend of each machine on the problems that several of them ran, by generation."
    return [Section("across", "Across machines", words, lambda: _figures().across_machines(best), [behind])]


def _machines(results: Results) -> Table:
    rows = []
    for name, machine in results.machines.items():
        own = results.frame[results.frame["machine"] == name]
        floor = own["noise_floor"].dropna().iloc[-1] if own["noise_floor"].notna().any() else None
        rows.append(
            {
                "generation": machine.generation,
                "machine": name,
                "gpu": " ".join(filter(None, (machine.gpu_name, machine.gpu_arch))) or "",
                "cpu": f"{machine.cpu_model}, {machine.threads} of {machine.cpu_count} threads",
                "memory": f"{(machine.gpu_memory_bytes or machine.memory_bytes) / 2**30:.0f} GiB",
                "driver": machine.driver or "",
                "cuda": machine.cuda or "",
                "cudnn": machine.cudnn or "",
                "torch": machine.torch,
                "triton": machine.triton or "",
                "commit": _words(own["commit"].str[:12]),
                "runs": f"{own['run'].nunique()}, last {own['created'].max()}",
                "noise": floor_in_words(floor) if pd.notna(floor) else "not measured",
                "records": len(results.records)
                if len(results.machines) == 1
                else own.groupby(["run", "label", "work"]).ngroups,
            }
        )
    rows.sort(key=lambda row: str(row["generation"]))
    headings = (
        "generation",
        "machine",
        "gpu",
        "cpu",
        "memory",
        "driver",
        "cuda",
        "cudnn",
        "torch",
        "triton",
        "commit",
        "runs",
    )
    columns = [Column(name, name) for name in headings] + [Column("noise", "noise floor"), Column("records", "records")]
    return table(pd.DataFrame(rows), columns, "Machines")


def _words(values: Sequence[str] | pd.Series) -> str:
    return ", ".join(sorted({str(value) for value in values if value}))


def _not_ok(results: Results) -> Section:
    title = "Everything that isn't ok"
    frame = results.latest.drop_duplicates(["machine", "work", "label"], keep="last")
    rows = frame[frame["status"] != "ok"]
    bad = [
        {"machine": "", "backend": "", "status": "unreadable", "reason": f"{bad.path}:{bad.line}: {bad.reason}"}
        for bad in results.skipped
    ]
    if rows.empty and not bad:
        return Section("not-ok", title, "Every cell is ok.")
    grouped = rows.groupby(["machine", "backend", "status", "reason"], sort=False)["problem"]
    listed = grouped.agg(lambda problems: _some(list(problems))).reset_index()
    listed = pd.concat([listed, pd.DataFrame(bad)]).fillna("")
    counts = ", ".join(f"{count} {status}" for status, count in rows["status"].value_counts().items())
    words = f"{counts}." + f" {len(bad)} lines could not be read." * bool(bad)
    columns = [Column("backend", "backend", swatch=True), Column("status", "status"), Column("reason", "reason")]
    columns += [Column("problem", "problems"), Column("machine", "machine")]
    return Section("not-ok", title, words, tables=[table(listed, columns, title)], is_table=True)


def _some(problems: list[str]) -> str:
    shown = ", ".join(problems[:3])
    return shown if len(problems) <= 3 else f"{shown} and {len(problems) - 3} more"
