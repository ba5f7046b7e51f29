"""Draws what the L2 model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rls_bench.inspector import l2_sweep
from rls_bench.inspector.tables import short


def draw(path: Path, swept: Sequence[l2_sweep.Swept]) -> None:
    """Predicted L2 hit rate, and DRAM traffic over the least possible, against sequence length; one line a GPU.

    GPUs that the model cannot tell apart share a line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd
    import seaborn as sns
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullLocator, PercentFormatter

    alike: dict[tuple[int, int, str], list[str]] = {}
    for gpu in dict.fromkeys(row.gpu for row in swept):
        alike.setdefault((gpu.l2_bytes, gpu.sms, gpu.arch), []).append(gpu.name + gpu.mark("l2_bytes", "sms"))
    labels = {
        key: f"{', '.join(names)} ({key[0] / 1e6:.0f} MB)"
        for key, names in sorted(alike.items(), key=lambda item: item)
    }
    frame = pd.DataFrame(
        {
            (labels[row.gpu.l2_bytes, row.gpu.sms, row.gpu.arch], row.length): (
                row.whole.hit_rate,
                row.whole.dram_bytes / row.whole.least_bytes,
            )
            for row in swept
        },
        index=["hit rate", "traffic"],
    ).T
    frame.index.names = ["GPU", "keys"]
    frame = frame.reset_index()
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (rates, traffic) = plt.subplots(1, 2, figsize=(15, 6.5))
    common = {"data": frame, "x": "keys", "hue": "GPU", "style": "GPU", "hue_order": list(labels.values())}
    look = {"style_order": list(labels.values()), "markers": True, "dashes": False, "palette": "colorblind"}
    sns.lineplot(y="hit rate", legend=False, ax=rates, **common, **look)
    sns.lineplot(y="traffic", ax=traffic, **common, **look)
    lengths = sorted(frame["keys"].unique())
    for axes in (rates, traffic):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [short(int(length)) for length in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("sequence length")
    rates.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    rates.set(ylabel="predicted L2 read hit rate", title="Hit rate")
    traffic.set_yscale("log", base=2)
    traffic.yaxis.set_major_formatter("{x:g}×")
    traffic.set(ylabel="predicted DRAM bytes over the least possible", title="DRAM traffic")
    traffic.legend(title=None, loc="upper left", frameon=True, fontsize="small")
    figure.suptitle(f"MODEL, not measured: LRU replay of the prefill kernel, {l2_sweep.TITLE} (?: size recalled)")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
