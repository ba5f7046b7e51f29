"""A picture of a workload: which shapes take the time, and how long their keys and queries are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rls_bench.problems.problem import Problem
from rls_bench.traffic.estimate import seconds
from rls_bench.traffic.grouping import family

# Bars that a reader can take in; the rest is one more.
_MOST_BARS = 12


def draw(path: Path, calls: Mapping[Problem, float], title: str = "") -> None:
    """Shares of calls and of estimated time by family, and both over key lengths, as the picture ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    import seaborn as sns
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    times = {problem: number * seconds(problem) for problem, number in calls.items()}
    shares = {
        "calls": {problem: number / math.fsum(calls.values()) for problem, number in calls.items()},
        "estimated time": {problem: time / math.fsum(times.values()) for problem, time in times.items()},
    }
    frame = pd.DataFrame(
        [
            {"family": name_of(problem), "keys": problem.key_length, "of": figure, "share": share}
            for figure, by_problem in shares.items()
            for problem, share in by_problem.items()
        ]
    )
    ranked = frame[frame["of"] == "estimated time"].groupby("family")["share"].sum().sort_values(ascending=False)
    shown = list(ranked.index[:_MOST_BARS])
    if len(ranked) > _MOST_BARS:
        frame["family"] = frame["family"].where(frame["family"].isin(shown), "all others")
        shown.append("all others")
    bars = frame.groupby(["family", "of"], as_index=False)["share"].sum()
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (families, lengths) = plt.subplots(1, 2, figsize=(15, 2.5 + 0.45 * max(6, len(shown))))
    common = {"hue": "of", "hue_order": list(shares), "palette": "colorblind"}
    sns.barplot(bars, y="family", x="share", order=shown, ax=families, saturation=1, **common)
    families.set(ylabel="", xlabel="share", title="Shapes, all but their lengths")
    families.legend(title=None, loc="lower right")
    sns.histplot(
        frame,
        x="keys",
        weights="share",
        log_scale=2,
        bins=24,
        element="step",
        common_norm=False,
        stat="count",
        alpha=0.35,
        ax=lengths,
        **common,
    )
    lengths.xaxis.set_major_formatter("{x:g}")
    lengths.set(xlabel="keys", ylabel="share", title="Key lengths")
    if (legend := lengths.get_legend()) is not None:
        legend.set_title(None)
    families.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    lengths.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def name_of(problem: Problem) -> str:
    """The title without lengths: ``decode B1 H32/8 Lq1 D128 bf16``."""
    words = replace(family(problem), device=problem.device).title.split()
    kept = [word for word in words if not word.startswith(("Lk", "L1024", "Lq1024"))]
    return " ".join([problem.regime, *kept])
