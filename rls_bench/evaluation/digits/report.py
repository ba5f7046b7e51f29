"""Tables, figure and bars of the digits task, from its rows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from rls_bench.evaluation.digits.grids import SETS
from rls_bench.evaluation.evaluation import Bar, Evaluation
from rls_bench.evaluation.intervals import over_seeds

TITLE = "Digits: the right cell under noise and fading"


def report(rows: pd.DataFrame, picked: dict[str, float]) -> Evaluation:
    """``rows`` hold one measurement of one seed each; ``picked`` the λ of each normaliser."""
    best = picked["zscore"]
    grounding = rows[(rows.experiment == "heads") & (rows.setting == "grounding")].groupby("seed")["heads"].first()
    counts = ", ".join(map(str, grounding))
    about = (
        "A 4 × 4 grid of real digits, each in a hue, and one question: which digit is in the cell of one hue? A causal "
        "transformer of 623 k parameters answers; a CNN of 22 k, trained only on whether a hue is present, says where "
        "to look by gradient × input. Steering acts on the question's query over the cached keys of the grid. Mid, "
        "hard and very hard grids are noisier and more faded than what the transformer was trained on. The grounding "
        "heads (a quarter of their attention, or more, on the right cell: "
        f"{counts} of 12 in the {len(grounding)} trainings), λ = {best:g} and the gates' thresholds are picked on a "
        "calibration split; all else is measured on test digits that no model saw. Figures are percent right or "
        "points gained over λ = 0, with 95 % intervals over trainings."
    )
    tables = {
        "Accuracy against λ (grounding heads, z-scored saliency)": _by_set(rows, "strength", "strength", "accuracy"),
        f"Points gained by heads steered, λ = {best:g}": _by_set(rows, "heads", "setting", "gain"),
        f"Points gained by control, λ = {best:g}": _by_set(rows, "control", "setting", "gain"),
        "Points gained by normaliser, each at the λ of its own calibration": _by_set(
            rows.assign(setting=rows.setting + " (λ = " + rows.strength.map("{:g}".format) + ")"),
            "normalizer",
            "setting",
            "gain",
        ),
        f"Points gained with a gate, λ = {best:g}": _by_set(rows, "gate", "setting", "gain"),
        "Percent of questions that a gate lets be steered": _by_set(rows, "gate", "setting", "steered_share"),
    }
    return Evaluation("digits", TITLE, about, rows, tables, _bars(rows), _figure(rows, best))


def _by_set(rows: pd.DataFrame, experiment: str, key: str, value: str) -> pd.DataFrame:
    """One line for each ``key``, one column a set; cells are intervals over seeds."""
    chosen = rows[rows.experiment == experiment]
    cells = chosen.groupby([key, "set"], sort=False)[value].agg(lambda seeds: str(over_seeds(list(seeds))))
    table = cells.unstack("set")[list(SETS)].loc[chosen[key].unique()].reset_index()
    return table.rename(columns={"strength": "λ", "setting": experiment})


def _values(rows: pd.DataFrame, experiment: str, setting: str, name: str, value: str) -> list[float]:
    chosen = rows[(rows.experiment == experiment) & (rows.setting == setting) & (rows.set == name)]
    return list(chosen[value])


def _bars(rows: pd.DataFrame) -> list[Bar]:
    hard, clean = (over_seeds(_values(rows, "heads", "grounding", name, "gain")) for name in ("hard", "clean"))
    shuffled = over_seeds(_values(rows, "control", "shuffled", "hard", "gain"))
    others = over_seeds(_values(rows, "heads", "others", "hard", "gain"))
    share = over_seeds(_values(rows, "gate", "disagreement", "clean", "steered_share"))
    gated = over_seeds(_values(rows, "gate", "disagreement", "hard", "gain"))
    kept = 100 * gated.mean / hard.mean if hard.mean else 0.0
    return [
        Bar("hard, points over λ = 0", "≥ 8", str(hard), hard.mean >= 8),
        Bar("hard, shuffled saliency, points", "≤ 0", str(shuffled), shuffled.mean <= 0),
        Bar("clean, points", "≥ −0.5", str(clean), clean.mean >= -0.5),
        Bar("hard, other heads only, points", "within ± 0.5", str(others), abs(others.mean) <= 0.5),
        Bar("disagreement gate, clean steered, %", "≤ 10", str(share), share.mean <= 10),
        Bar("disagreement gate, gain on hard kept, %", "≥ 95", f"{kept:.0f}", kept >= 95),
    ]


def _figure(rows: pd.DataFrame, best: float) -> Figure:
    import seaborn as sns

    figure = Figure(figsize=(12, 4.4), layout="constrained")
    curve, bars, gates = figure.subplots(1, 3)
    strengths = rows[rows.experiment == "strength"]
    sns.lineplot(strengths, x="strength", y="accuracy", hue="set", errorbar=_ends, marker="o", ax=curve)
    curve.axvline(best, color="grey", linewidth=0.8, linestyle=":")
    curve.set(title="Accuracy against λ", xlabel="λ (dotted: picked)", ylabel="accuracy, %", ylim=(0, 102))
    hard = rows[(rows.set == "hard") & rows.experiment.isin(["heads", "control"]) & (rows.setting != "real")]
    sns.barplot(hard, x="gain", y="setting", hue="experiment", dodge=False, errorbar=_ends, ax=bars)
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set(title=f"Hard set, λ = {best:g}", xlabel="points over λ = 0", ylabel="")
    steered = rows[rows.experiment == "gate"]
    sns.barplot(steered, x="set", y="steered_share", hue="setting", errorbar=_ends, ax=gates)
    gates.set(title="Steered by each gate", xlabel="", ylabel="questions steered, %", ylim=(0, 102))
    for axes in (curve, bars, gates):
        # Under the axes, where it hides nothing.
        sns.move_legend(axes, "upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, title=None, frameon=False)
    trainings = rows.seed.nunique()
    figure.suptitle(f"Bands and bars: 95 % intervals of the mean of {trainings} trainings (Student's t)", fontsize=10)
    return figure


def _ends(seeds: pd.Series) -> tuple[float, float]:
    """Of the interval that the tables print, too."""
    interval = over_seeds(list(seeds))
    return interval.low, interval.high
