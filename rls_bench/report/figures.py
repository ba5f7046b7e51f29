"""Every plot of a report, drawn with seaborn; none is larger for more records than its panels allow."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullFormatter

from rls_bench.report.bars import bars
from rls_bench.report.palette import INK, Look
from rls_bench.report.panels import has_one, panels

# More points than this in one panel become pixels: a page of vectors would grow without bound.
MOST_VECTORS = 400
# Characters of a panel's title in a line, by panels in a row; a longer one would leave the picture at its right.
_TITLE_WIDTHS = {1: 84, 2: 46, 3: 30}
_TITLE_LINES = 3
_LEAST_SPAN = 2.0
# A line with more points shows a marker for every few of them.
MOST_MARKERS = 12

_STYLE: Any = {
    "svg.fonttype": "none",
    # Names of backends are text, whatever signs they hold.
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "grid.color": "#8a8a8a",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
}


@contextmanager
def style() -> Iterator[None]:
    """Drawing and saving happen within; nothing of it outlives the report."""
    with sns.axes_style("whitegrid"), mpl.rc_context(_STYLE):
        yield


def latency(frame: pd.DataFrame, look: Look) -> Figure:
    """Latency against key length, a panel for each family of problems, with 95 % intervals; bars for one length."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        if has_one(panel, "key_length"):
            bars(axes, look, panel, "latency_ns", ("low_ns", "high_ns"), scale=1e-9)
            axes.set(xlabel="latency")
            axes.xaxis.set_major_formatter(EngFormatter("s"))
            return
        _lines(axes, look, panel, "latency_ns", ("low_ns", "high_ns"), scale=1e-9)
        axes.set(xlabel="key length (tokens)", ylabel="latency")
        _amounts(axes, "s")
        _lengths(axes)

    return _panels(frame, "panel", draw, look, _interval(frame), barred="key_length")


def steering_cost(frame: pd.DataFrame, look: Look) -> Figure:
    """Latency as a multiple of plain attention's, against key length, with 95 % intervals; bars for one length."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        if has_one(panel, "key_length"):
            bars(axes, look, panel, "unsteered_ratio", ("ratio_low", "ratio_high"))
            axes.axvline(1.0, color=INK, linewidth=0.8, linestyle="--")
            axes.set(xlabel="× unsteered")
            return
        _lines(axes, look, panel, "unsteered_ratio", ("ratio_low", "ratio_high"))
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="key length (tokens)", ylabel="× unsteered")
        _multiples(axes, "y", panel["unsteered_ratio"])
        _lengths(axes)

    return _panels(frame, "panel", draw, look, [*_interval(frame), _line("--", "plain attention")], barred="key_length")


def error(frame: pd.DataFrame, look: Look) -> Figure:
    """The worst relative error against λ, a panel for each dtype; the dashed line is plain eager attention's own.

    Bars for one λ.
    """

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        worst = panel.groupby(["backend", "strength"], as_index=False)[["error", "error_floor"]].max()
        if has_one(worst, "strength"):
            bars(axes, look, worst, "error")
            axes.axvline(worst["error_floor"].max(), color=INK, linewidth=0.8, linestyle="--")
            axes.set(xlabel="relative error")
            return
        _lines(axes, look, worst, "error", x="strength")
        floors = worst.groupby("strength", as_index=False)["error_floor"].max()
        axes.plot(floors["strength"], floors["error_floor"], color=INK, linewidth=0.8, linestyle="--", marker="_")
        if floors["strength"].abs().max() > 10:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(yscale="log", xlabel="strength λ", ylabel="relative error")
        _ticks(axes.yaxis, FuncFormatter(lambda value, _: f"{value:.2g}"))
        _widen(axes, "y")

    return _panels(frame, "dtype", draw, look, [_line("--", "plain eager attention")], barred="strength")


def speed_against_error(frame: pd.DataFrame, look: Look) -> Figure:
    """Latency over the fastest of the same problem against error over the dtype's own floor: lower left is better."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        _scatter(axes, look, panel, "latency_multiple", "error_ratio")
        axes.set(xlabel="latency (× fastest)", ylabel="error (× floor)")
        _multiples(axes, "x", panel["latency_multiple"])
        _multiples(axes, "y", panel["error_ratio"])

    return _panels(frame, "machine", draw, look)


def roofline(frame: pd.DataFrame, look: Look) -> Figure:
    """Achieved rate against arithmetic intensity, under the ceilings that were measured."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        _scatter(axes, look, panel, "intensity_flop_per_byte", "tflop_per_s")
        compute, memory = panel["ceiling_tflop_per_s"].max(), panel["ceiling_gb_per_s"].max()
        if pd.notna(compute) and pd.notna(memory):
            least, most = panel["intensity_flop_per_byte"].min(), panel["intensity_flop_per_byte"].max()
            edge = compute / memory * 1e3
            corners = [min(least, edge) / 2, edge, max(most, edge) * 2]
            axes.plot(corners, [min(at * memory / 1e3, compute) for at in corners], color=INK, linewidth=1.2)
        axes.set(xlabel="intensity (FLOP/byte)", ylabel="TFLOP/s")
        _logarithmic(axes, "x")
        _logarithmic(axes, "y")

    return _panels(frame, "panel", draw, look, [_line("-", "ceilings, as measured")])


def hit_rate(frame: pd.DataFrame, look: Look) -> Figure:
    """Share of lookups that the last-level cache served, measured, with the model's beside it where there is one."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        _scatter(axes, look, panel, "key_length", "hit_rate_percent", hollow="source")
        axes.set(xlabel="key length (tokens)", ylabel="hit rate (%)", ylim=(-2, 102))
        _lengths(axes)

    model = Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none", markersize=5)
    return _panels(frame, "machine", draw, look, [(model, "a model's")] if (frame["source"] == "model").any() else [])


def energy(frame: pd.DataFrame, look: Look) -> Figure:
    """Joules a call against key length; bars for one length."""

    def draw(axes: Axes, panel: pd.DataFrame) -> None:
        if has_one(panel, "key_length"):
            bars(axes, look, panel, "joules")
            axes.set(xlabel="energy a call")
            axes.xaxis.set_major_formatter(EngFormatter("J"))
            return
        _lines(axes, look, panel, "joules")
        axes.set(xlabel="key length (tokens)", ylabel="energy a call")
        _amounts(axes, "J")
        _lengths(axes)

    return _panels(frame, "panel", draw, look, barred="key_length")


def across_machines(frame: pd.DataFrame) -> Figure:
    """Latency of the problems that several machines ran, the fastest backend of each, a colour for each machine."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    axes = figure.subplots()
    palette = dict(zip(frame["machine"].unique(), sns.color_palette("colorblind"), strict=False))
    sns.scatterplot(
        frame, x="key_length", y="seconds", hue="machine", style="machine", palette=palette, s=45, ax=axes, linewidth=0
    )
    axes.set(xlabel="key length (tokens)", ylabel="latency of the fastest")
    _amounts(axes, "s")
    _lengths(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, ncols=1)
    return figure


Draw = Callable[[Axes, pd.DataFrame], None]
# Something in the plot, and the words that say what it means.
Sign = tuple[Artist, str]


def _panels(
    frame: pd.DataFrame, by: str, draw: Draw, look: Look, signs: Sequence[Sign] = (), *, barred: str = ""
) -> Figure:
    """Small multiples, at most three a row, over one legend of backends.

    Bars, which are drawn where the column ``barred`` has one value, name themselves. ``signs`` are what else is drawn,
    and what it means.
    """
    values = panels(frame, by)
    columns = {1: 1, 2: 2, 4: 2}.get(len(values), 3)
    rows = -(-len(values) // columns)
    figure = Figure(figsize=(9.5, 0.6 + (3.1 if columns < 3 else 2.6) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(values) :]:
        axes.set_visible(False)
    for axes, value in zip(grid.flat, values, strict=False):
        draw(axes, frame[frame[by] == value])
        axes.set_title(_wrap(value, _TITLE_WIDTHS[columns]), fontsize=9 if columns < 3 else 8)
    unnamed = [value for value in values if not (barred and has_one(frame[frame[by] == value], barred))]
    _legend(figure, look, set(frame.loc[frame[by].isin(unnamed), "backend"]), signs)
    return figure


def _wrap(title: str, width: int) -> str:
    return "\n".join(textwrap.wrap(title, width, max_lines=_TITLE_LINES, placeholder=" …"))


def _lines(
    axes: Axes,
    look: Look,
    panel: pd.DataFrame,
    column: str,
    bounds: tuple[str, str] | None = None,
    *,
    x: str = "key_length",
    scale: float = 1.0,
) -> None:
    """A line a backend; problems that share an ``x`` (several λ, say) are drawn as their geometric mean."""
    shown = np.log(panel[[column, *(bounds or ())]]).groupby([panel["backend"], panel[x]]).mean()
    values = scale * np.exp(shown)
    for backend, rows in values.groupby(level=0):
        name, at = str(backend), rows.index.get_level_values(1)
        colour, marker = look.colours[name], look.markers[name]
        every = -(-len(at) // MOST_MARKERS)
        axes.plot(at, rows[column], color=colour, marker=marker, markersize=4.5, markevery=every, linewidth=1.3)
        if bounds is not None:
            axes.fill_between(at, rows[bounds[0]], rows[bounds[1]], color=colour, alpha=0.3, linewidth=1.0)


def _scatter(axes: Axes, look: Look, panel: pd.DataFrame, x: str, y: str, *, hollow: str = "") -> None:
    """A point a row; where ``hollow`` names a column, rows that say "model" there are drawn hollow."""
    many = len(panel) > MOST_VECTORS
    for backend, rows in panel.groupby("backend"):
        name = str(backend)
        modelled = rows[hollow] == "model" if hollow else pd.Series(False, index=rows.index)
        for chosen, face in ((~modelled, look.colours[name]), (modelled, "none")):
            axes.scatter(
                rows.loc[chosen, x],
                rows.loc[chosen, y],
                s=14 if many else 26,
                marker=look.markers[name],
                facecolors=face,
                edgecolors=look.colours[name],
                linewidths=0.8,
                alpha=0.5 if many else 0.85,
                rasterized=many,
            )


def _legend(figure: Figure, look: Look, backends: set[str], signs: Sequence[Sign]) -> None:
    order = [name for name in look.colours if name in backends]
    if not order and not signs:
        return
    handles: list[Artist] = [
        Line2D([], [], color=look.colours[name], marker=look.markers[name], markersize=5, linewidth=1.3)
        for name in order
    ]
    handles += [sign for sign, _ in signs]
    names = order + [words for _, words in signs]
    figure.legend(handles, names, loc="outside lower center", ncols=min(6, len(names)), frameon=False)


def _interval(frame: pd.DataFrame) -> list[Sign]:
    """What intervals look like where panels are lines, where they are bars, or both."""
    shown = frame[frame["panel"].isin(panels(frame, "panel"))]
    barred = {has_one(panel, "key_length") for _, panel in shown.groupby("panel")}
    whisker, band = Line2D([], [], color=INK, marker="|", markersize=7), Patch(color=INK, alpha=0.3, linewidth=0)
    return [(sign, "95 % interval") for sign, is_bar in ((band, False), (whisker, True)) if is_bar in barred]


def _line(style: Literal["-", "--"], words: str) -> Sign:
    return Line2D([], [], color=INK, linewidth=0.8, linestyle=style), words


def _lengths(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1024:g}k" if value >= 1024 else f"{value:g}")
    )
    axes.xaxis.set_minor_formatter(NullFormatter())


def _amounts(axes: Axes, unit: str) -> None:
    axes.set_yscale("log")
    _ticks(axes.yaxis, EngFormatter(unit))
    _widen(axes, "y")


def _multiples(axes: Axes, direction: str, values: pd.Series) -> None:
    """Logarithmic, unless all lies so near together that a logarithmic axis would be left without ticks."""
    if values.max() > 4 * values.min():
        _logarithmic(axes, direction)
    else:
        _widen(axes, direction)


def _logarithmic(axes: Axes, direction: str) -> None:
    axes.set(**{f"{direction}scale": "log"})
    _ticks(getattr(axes, f"{direction}axis"), FuncFormatter(lambda value, _: f"{value:g}"))
    _widen(axes, direction)


def _widen(axes: Axes, direction: str) -> None:
    """Have the axis span a factor of two at least, lest a difference of nothing looks like one."""
    low, high = getattr(axes, f"get_{direction}lim")()
    if 0 < low < high < _LEAST_SPAN * low:
        middle = (low * high) ** 0.5
        getattr(axes, f"set_{direction}lim")(middle / _LEAST_SPAN**0.5, middle * _LEAST_SPAN**0.5)


def _ticks(axis: Axis, formatter: Formatter) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=10))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())
