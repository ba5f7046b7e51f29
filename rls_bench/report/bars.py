"""One key length as bars: the backends sorted, the best on top, each with its interval and its figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rls_bench.report.palette import INK, Look

# A longer name would leave the bars no room.
LONGEST_NAME = 18


def bars(
    axes: Axes,
    look: Look,
    panel: pd.DataFrame,
    column: str,
    bounds: tuple[str, str] | None = None,
    *,
    scale: float = 1.0,
) -> None:
    """A bar a backend from 0, least on top; problems that share a length are drawn as their geometric mean."""
    means = scale * np.exp(np.log(panel[[column, *(bounds or ())]]).groupby(panel["backend"]).mean())
    shown = means.dropna(subset=[column]).sort_values(column, ascending=False)
    names = [str(name) for name in shown.index]
    places = np.arange(len(names))
    axes.barh(places, shown[column], color=[look.colours[name] for name in names], height=0.7)
    if bounds is not None:
        axes.errorbar(
            shown[column],
            places,
            xerr=[shown[column] - shown[bounds[0]], shown[bounds[1]] - shown[column]],
            fmt="none",
            ecolor=INK,
            elinewidth=1.0,
            capsize=2.5,
        )
    labels = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    axes.set_yticks(places, labels)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0.0)
