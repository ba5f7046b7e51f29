"""Tables, figure and bars of the conflict task, from its rows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from rls_bench.evaluation.evaluation import Bar, Evaluation
from rls_bench.evaluation.intervals import Interval, of_proportion

TITLE = "Conflict: believing the highlighted speaker"


def report(rows: pd.DataFrame, perplexities: dict[float, float], picked: float) -> Evaluation:
    """``rows`` count right answers of one setting each; ``perplexities`` of plain text by λ; ``picked`` is the λ."""
    test = rows[rows.half == "test"]
    base = _percent(test[test.strength == 0].iloc[0])
    about = (
        "Two speakers contradict each other about something that cannot be known (a door's colour, the day of a "
        "meeting), one of their sentences is highlighted (b = 1 on its tokens), and the question follows. "
        "SmolLM2-135M-Instruct has read the conversation unsteered, from its cache; the question is steered. Right is "
        "the answer of the highlighted speaker, likelier than the other's. λ is picked on "
        f"{rows[rows.half == 'calibration']['items'].iloc[0]} conversations with all layers and measured on "
        f"{test['items'].iloc[0]} others; intervals are 95 % (Wilson). The price is the perplexity of 280 tokens of "
        "each of three public-domain novels, after twenty highlighted tokens near its beginning."
    )
    tables = {
        "Percent that believes the highlighted speaker, by λ and layers steered": _by_layers(test),
        f"Which sentence is highlighted, λ = {picked:g}, all layers": _by_span(test, picked),
        "Perplexity of plain text under a highlight, all layers": _prices(perplexities),
    }
    return Evaluation(
        "conflict",
        TITLE,
        about,
        rows,
        tables,
        _bars(test, base, perplexities, picked),
        _figure(test, perplexities, picked),
    )


def _percent(row: pd.Series) -> Interval:
    return of_proportion(int(row.right), int(row["items"]))


def _at(test: pd.DataFrame, span: str, layers: str, strength: float) -> Interval:
    # Without λ there is one figure for all layers and spans.
    if strength == 0:
        return _percent(test[test.strength == 0].iloc[0])
    chosen = test[(test.span == span) & (test.layers == layers) & (test.strength == strength)]
    return _percent(chosen.iloc[0])


def _by_layers(test: pd.DataFrame) -> pd.DataFrame:
    layers = list(test.layers.unique())
    strengths = sorted(test.strength.unique())
    columns = {name: [str(_at(test, "highlighted", name, strength)) for strength in strengths] for name in layers}
    return pd.DataFrame({"λ": [f"{strength:g}" for strength in strengths], **columns})


def _by_span(test: pd.DataFrame, picked: float) -> pd.DataFrame:
    spans = ("highlighted", "neutral", "wrong")
    names = ("none (λ = 0)", "the right speaker's", "neither speaker's", "the other speaker's")
    percents = [_at(test, "highlighted", "all layers", 0.0), *(_at(test, span, "all layers", picked) for span in spans)]
    return pd.DataFrame({"sentence": names, "right, %": [str(percent) for percent in percents]})


def _prices(perplexities: dict[float, float]) -> pd.DataFrame:
    base = perplexities[0.0]
    rows = [(f"{strength:g}", f"{value:.2f}", f"{value / base:.3f}") for strength, value in perplexities.items()]
    return pd.DataFrame(rows, columns=["λ", "perplexity", "× unsteered"])


def _bars(test: pd.DataFrame, base: Interval, perplexities: dict[float, float], picked: float) -> list[Bar]:
    right, wrong = (_at(test, span, "all layers", picked) for span in ("highlighted", "wrong"))
    price = f"{perplexities[picked]:.2f} (unsteered {perplexities[0.0]:.2f})"
    return [
        Bar(f"right at the picked λ = {picked:g}, %", "≥ 90", str(right), right.mean >= 90),
        Bar("the wrong sentence highlighted, %", f"< {base.mean:.1f}, as without", str(wrong), wrong.mean < base.mean),
        Bar("perplexity at that λ", "printed", price, True),
    ]


def _figure(test: pd.DataFrame, perplexities: dict[float, float], picked: float) -> Figure:
    import seaborn as sns

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    accuracy, price = figure.subplots(1, 2)
    strengths = sorted(test.strength.unique())
    for layers, colour in zip(test.layers.unique(), sns.color_palette(), strict=False):
        found = [_at(test, "highlighted", layers, strength) for strength in strengths]
        accuracy.plot(strengths, [each.mean for each in found], marker="o", color=colour, label=layers)
        accuracy.fill_between(
            strengths, [each.low for each in found], [each.high for each in found], color=colour, alpha=0.15
        )
    for span, marker in (("wrong", "v"), ("neutral", "s")):
        found_at = _at(test, span, "all layers", picked)
        ends = [[found_at.mean - found_at.low], [found_at.high - found_at.mean]]
        accuracy.errorbar(
            [picked], [found_at.mean], yerr=ends, fmt=marker, color="grey", capsize=3, label=f"{span} sentence"
        )
    accuracy.set(title="Believes the highlighted speaker", ylabel="right, %", ylim=(0, 102))
    accuracy.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    sns.lineplot(x=list(perplexities), y=list(perplexities.values()), marker="o", ax=price)
    price.set(title="Price on plain text, all layers", ylabel="perplexity", ylim=(0, None))
    for axes in (accuracy, price):
        axes.axvline(picked, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel("λ (dotted: picked)")
    items = test["items"].iloc[0]
    figure.suptitle(f"Bands and bars: 95 % intervals over {items} conversations (Wilson)", fontsize=10)
    return figure
