"""A sweep on paper: two CSV files, two pictures and REPORT.md."""

from __future__ import annotations

import csv
from dataclasses import astuple
from pathlib import Path

import pandas as pd
import seaborn as sns
from jinja2 import Template
from matplotlib.figure import Figure

from rls_bench.machines.machine import Machine
from rls_bench.steering.overhead import Overhead
from rls_bench.steering.sweep import PUBLISHED, PUBLISHED_STRENGTHS, Example, Settings, Sweep

_HEADER = ("strength", "entropy_reduction_percent", "kl_original_steered")

_REPORT = Template(
    """\
# Steering against strength

Command: `{{ command }}`, {{ date }}. Machine: {{ machine.title }}, torch {{ machine.torch }}.

{{ settings.heads }} heads, {{ settings.length }} keys and queries, seeds {{ settings.seeds | join(", ") }}, \
logits of spread {{ settings.logit_scale }}, saliency normalised by {{ settings.normalize }}.
{% if settings.backend -%}
Metrics come from the row statistics of backend `{{ settings.backend }}`, without an attention matrix (eps = 0); \
{% if settings.head_dim -%}
query and key are random, head_dim {{ settings.head_dim }}.
{%- else -%}
query holds the rows of Z and key is the identity.
{%- endif %}
{%- else -%}
Metrics come from the attention matrix in the published form, eps = {{ settings.eps }}.
{%- endif %}

| λ | entropy reduction % | KL(A ‖ A') nats |
|---|---|---|
{% for row in sweep.rows -%}
| {{ row.printed() | join(" | ") }} |
{% endfor %}
{% if matches is not none -%}
Against the published table: {{ matches }} of {{ published }} figures as printed.

{% endif -%}
Monotone in λ ≥ 0, checked for each seed before rounding: entropy reduction \
{{ "yes" if sweep.monotone("entropy_reduction_percent") else "**no**" }}, \
KL {{ "yes" if sweep.monotone("kl") else "**no**" }}.

## Overhead

{% if overhead -%}
Steered (`{{ overhead.backend }}`) {{ "%.2f" | format(overhead.steered_ms) }} ms, \
unsteered {{ "%.2f" | format(overhead.unsteered_ms) }} ms: \
{{ overhead.words }}, \
medians of {{ overhead.rounds }} rounds taken in turns on {{ overhead.shape }}. \
Measured on the machine above; the publication assumed 0.85 ms.
{%- else -%}
Not measured: {{ no_overhead }}
{%- endif %}

## Pictures

![entropy reduction and KL against strength](lambda_tradeoff.png)
![saliency, base and steered attention of the first {{ keys }} keys](steerability_plot.png)
""",
    keep_trailing_newline=True,
)


def published_matches(sweep: Sweep) -> int | None:
    """How many of the published 18 figures come out as printed; None where the sweep is another experiment."""
    settings = sweep.settings
    ours = (settings.length, settings.heads, settings.seeds, settings.logit_scale, settings.normalize)
    theirs = Settings()
    same = ours == (theirs.length, theirs.heads, theirs.seeds, theirs.logit_scale, theirs.normalize)
    if not same or settings.head_dim is not None or settings.strengths != PUBLISHED_STRENGTHS:
        return None
    return sum(
        ours == theirs
        for row, published in zip(sweep.rows, PUBLISHED, strict=True)
        for ours, theirs in zip(row.printed()[1:], published[1:], strict=True)
    )


def write(
    folder: Path,
    sweep: Sweep,
    example: Example,
    example_strength: float,
    overhead: Overhead | None,
    no_overhead: str,
    machine: Machine,
    command: str,
    date: str,
) -> None:
    """Write ``sweep.csv`` (as printed), ``sweep_seeds.csv`` (each seed in full), both pictures and ``REPORT.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "sweep.csv", _HEADER, [row.printed() for row in sweep.rows])
    per_seed = [(seed, *astuple(row)) for seed, rows in sweep.seed_rows.items() for row in rows]
    _write_csv(folder / "sweep_seeds.csv", ("seed", *_HEADER), per_seed)
    _draw_tradeoff(sweep).savefig(folder / "lambda_tradeoff.png", dpi=150)
    _draw_example(example, example_strength).savefig(folder / "steerability_plot.png", dpi=150)
    report = _REPORT.render(
        command=command,
        date=date,
        machine=machine,
        settings=sweep.settings,
        sweep=sweep,
        matches=published_matches(sweep),
        published=2 * len(PUBLISHED),
        overhead=overhead,
        no_overhead=no_overhead,
        keys=len(example.saliency),
    )
    (folder / "REPORT.md").write_text(report, encoding="utf-8")


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _draw_tradeoff(sweep: Sweep) -> Figure:
    rows = [astuple(row) for rows in sweep.seed_rows.values() for row in rows]
    table = pd.DataFrame(rows, columns=list(_HEADER))
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    blue, orange = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
    # KL has more room above it: on one scale each, the two curves would hide one another.
    for axes, column, label, colour, marker, room in (
        (left, "entropy_reduction_percent", "entropy reduction (%)", blue, "o", 1.05),
        (right, "kl_original_steered", "KL(A ‖ A') (nats)", orange, "s", 1.6),
    ):
        style = {"color": colour, "marker": marker, "label": label, "legend": False}
        sns.lineplot(table, x="strength", y=column, errorbar=("pi", 100), ax=axes, **style)
        low, high = axes.get_ylim()
        axes.set_ylim(low * room, high * room)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", colors=colour)
    left.set_xlabel("strength λ")
    left.grid(alpha=0.3)
    left.legend(handles=[*left.get_lines(), *right.get_lines()], loc="upper left")
    left.set_title("What λ buys and what it changes: mean and range over seeds")
    return figure


def _draw_example(example: Example, strength: float) -> Figure:
    keys = range(len(example.saliency))
    figure = Figure(figsize=(9, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    colours = sns.color_palette("colorblind")
    top.bar(keys, example.saliency.tolist(), width=1.0, color=colours[2])
    top.set_ylabel("saliency")
    bottom.plot(keys, example.base.tolist(), color=colours[0], label="base", linewidth=1.2)
    bottom.plot(keys, example.steered.tolist(), color=colours[3], label=f"steered, λ = {strength:g}", linewidth=1.2)
    bottom.set_ylabel("attention of one query")
    bottom.set_xlabel("key")
    bottom.set_ylim(bottom=0)
    bottom.legend(loc="upper right")
    top.set_title(f"Where saliency points, attention follows (first {len(keys)} keys)")
    return figure
