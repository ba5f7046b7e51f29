"""Draws what the L2 model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rls_bench.inspector import l2_sweep
from rls_bench.inspector.l2 import Replay
from rls_bench.inspector.tables import short


def draw(path: Path, swept: Sequence[l2_sweep.Swept], title: str) -> None:
    """Predicted L2 hit rate, and DRAM traffic over the least possible, against sequence length.

    One colour a GPU, from all of its L2 to half of it.

    GPUs that the model cannot tell apart share a line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullLocator, PercentFormatter

    alike: dict[tuple[int, int, str], list[str]] = {}
    for gpu in dict.fromkeys(row.gpu for row in swept):
        alike.setdefault((gpu.l2_bytes, gpu.sms, gpu.arch), []).append(gpu.name + gpu.mark("l2_bytes", "sms"))
    labels = {
        key: f"{', '.join(names)} ({key[0] / 1e6:.0f} MB)"
        for key, names in sorted(alike.items(), key=lambda item: item)
    }
    colours = dict(zip(labels, sns.color_palette("colorblind"), strict=False))
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (rates, traffic) = plt.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
    seen = {(row.gpu.l2_bytes, row.gpu.sms, row.gpu.arch, row.length): row for row in swept}
    for key, label in labels.items():
        rows = [row for row in seen.values() if (row.gpu.l2_bytes, row.gpu.sms, row.gpu.arch) == key]
        lengths = [row.length for row in rows]
        for axes, read in ((rates, _hit_rate), (traffic, _traffic)):
            whole, half = [read(row.whole) for row in rows], [read(row.half) for row in rows]
            axes.plot(lengths, whole, marker="o", markersize=4, color=colours[key], label=label)
            axes.plot(lengths, half, linestyle=":", color=colours[key])
            axes.fill_between(lengths, whole, half, color=colours[key], alpha=0.15, linewidth=0)
    lengths = sorted({row.length for row in swept})
    for axes in (rates, traffic):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [short(int(length)) for length in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("sequence length")
    rates.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    rates.set(ylabel="predicted L2 read hit rate", title="Hit rate", ylim=(0, 1.02))
    traffic.set_yscale("log", base=2)
    traffic.yaxis.set_major_formatter("{x:g}×")
    traffic.set(ylabel="predicted DRAM bytes over the least possible", title="DRAM traffic", ylim=(1, None))
    handles, names = rates.get_legend_handles_labels()
    handles += [Line2D([], [], color="grey", marker="o", markersize=4), Line2D([], [], color="grey", linestyle=":")]
    names += ["all of L2 serves the replay", "half of it does; read the band as a bracket"]
    # Below, where it hides no line.
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    figure.suptitle(f"MODEL, not measured: LRU replay of the prefill kernel, {title} (?: size recalled)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _hit_rate(replay: Replay) -> float:
    return replay.hit_rate


def _traffic(replay: Replay) -> float:
    return replay.dram_bytes / replay.least_bytes
