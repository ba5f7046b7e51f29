"""A picture of the choices: latency against error in each regime, memory as size, the Pareto front as a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rls_bench.choose.decision import Decision
from rls_bench.choose.evidence import Evidence


def draw(path: Path, decided: Sequence[tuple[Evidence, Sequence[Decision]]]) -> bool:
    """Draw a panel for each machine and regime that has figures of error, as the picture ``path``; whether one has."""
    several = len(decided) > 1
    rows = [
        {
            "regime": f"{evidence.machine.title}\n" * several + f"{found.regime}, {found.lengths} keys",
            "backend": one.backend,
            "× least latency": one.latency,
            "error": one.error,
            "peak MiB": None if one.peak_bytes is None else round(one.peak_bytes / 2**20, 1),
            "front": one.on_front,
        }
        for evidence, decisions in decided
        for found in decisions
        for one in found.standings
        if one.error
    ]
    if not rows:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    import seaborn as sns
    from matplotlib import pyplot as plt

    frame = pd.DataFrame(rows)
    sized = frame["peak MiB"].notna().all()
    sns.set_theme(style="whitegrid", context="notebook")
    grid = sns.relplot(
        frame,
        x="× least latency",
        y="error",
        hue="backend",
        palette="colorblind",
        size="peak MiB" if sized else None,
        sizes=(60, 400) if sized else None,
        col="regime",
        col_wrap=min(3, frame["regime"].nunique()),
        height=4,
        facet_kws={"sharex": False, "sharey": False},
        zorder=2,
    )
    for regime, panel in grid.axes_dict.items():
        best = frame[(frame["regime"] == regime) & frame["front"]].sort_values("× least latency")
        panel.plot(best["× least latency"], best["error"], color="0.5", linestyle="--", zorder=1)
        panel.set(xscale="log", yscale="log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("{x:g}")
    grid.set_titles("{col_name}")
    grid.savefig(path, dpi=110)
    plt.close(grid.figure)
    return True
