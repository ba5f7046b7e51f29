"""What is drawn: lines over key lengths, sorted bars where there is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_records import launches, problem, record, write
from matplotlib.axes import Axes

from rls_bench.report import figures, read
from rls_bench.report.palette import look

COSTS = {"unsteered": 1e6, "sdpa-cpu": 3e6, "cpu": 2e6}


def drawn(tmp_path: Path, lengths: tuple[int, ...]) -> tuple[list[str], list[float], int, list[str]]:
    """Of the latency plot: the bars' names from the top, their ends in seconds, lines, and the words of its legend."""
    rng = np.random.default_rng(1)
    records = [record(name, problem(length), launches(rng, ns)) for length in lengths for name, ns in COSTS.items()]
    frame = read([write(tmp_path / "r.jsonl", records)]).latest
    frame = frame.assign(panel=frame["family"])
    with figures.style():
        figure = figures.latency(frame, look(COSTS))
    (axes,) = figure.axes
    bars = sorted(axes.patches, key=lambda bar: -bar.get_y())
    names = [label.get_text() for label in axes.get_yticklabels()][::-1] if bars else []
    # The caps of intervals are lines without a line style.
    lines = [line for line in axes.lines if line.get_linestyle() != "None"]
    return (
        names,
        [bar.get_width() for bar in bars],
        len(lines),
        [text.get_text() for text in figure.legends[0].get_texts()],
    )


def test_one_key_length_is_drawn_as_bars_the_fastest_on_top(tmp_path: Path) -> None:
    names, seconds, lines, legend = drawn(tmp_path, (1024,))
    assert names == ["unsteered", "cpu", "sdpa-cpu"]
    assert seconds == pytest.approx([1e-3, 2e-3, 3e-3], rel=0.1)
    assert lines == 0
    assert legend == ["95 % interval"]


def test_several_key_lengths_are_drawn_as_lines(tmp_path: Path) -> None:
    names, _, lines, legend = drawn(tmp_path, (256, 1024))
    assert names == []
    assert lines == len(COSTS)
    assert legend == ["cpu", "sdpa-cpu", "unsteered", "95 % interval"]


def test_one_strength_is_drawn_as_bars_from_0_and_several_over_a_factor_of_two_at_least(tmp_path: Path) -> None:
    def axes_of(*strengths: float) -> Axes:
        problems = [replace(problem(1024), strength=strength) for strength in strengths]
        records = [record("cpu", each, launches(np.random.default_rng(1), 1e6)) for each in problems]
        frame = read([write(tmp_path / f"{len(records)}.jsonl", records)])
        with figures.style():
            (axes,) = figures.error(frame.latest, look(COSTS)).axes
        return axes

    alone = axes_of(1.0)
    assert [label.get_text() for label in alone.get_yticklabels()] == ["cpu"]
    assert alone.get_xlim()[0] == 0.0
    low, high = axes_of(1.0, 4.0).get_ylim()
    assert high >= 1.999 * low


def test_a_title_that_is_too_long_for_its_panel_is_broken_and_then_cut_with_a_sign() -> None:
    lines = figures._wrap("a regime of many words " * 10, 30).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 30
    assert lines[-1].endswith("…")
