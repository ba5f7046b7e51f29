"""``rls-bench evaluate conflict``: whether a language model believes the speaker that is highlighted."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rls_bench.evaluation import smollm2
from rls_bench.evaluation.conflict.items import Span, generate
from rls_bench.evaluation.conflict.report import report
from rls_bench.evaluation.evaluation import Evaluation
from rls_bench.evaluation.intervals import least_within_error

ITEMS = 200
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0)
# SmolLM2-135M has 30 layers; λ is calibrated with all of them.
LAYERS = {
    "all layers": range(30),
    "layers 0-9": range(10),
    "layers 10-19": range(10, 20),
    "layers 20-29": range(20, 30),
}


def evaluate(items: int = ITEMS, backend: str = "auto", log: Callable[[str], None] = print) -> Evaluation:
    """λ picked on the first half of ``items`` conversations, everything else measured on the second.

    Raises MissingPackage where the model or what loads it is not installed.
    """
    model, tokenizer = smollm2.load(task="conflict")
    from rls_bench.evaluation.conflict.reading import Conversations, perplexity

    log("model loaded")
    conversations = generate(items)
    rows: list[dict[str, object]] = []

    def ask(read: Conversations, half: str, span: Span, strength: float, layers: str) -> float:
        believed = read.believed(span, strength, LAYERS[layers])
        right, total = int(believed.sum()), believed.numel()
        rows.append(
            {"half": half, "span": span, "layers": layers, "strength": strength, "right": right, "items": total}
        )
        return 100 * right / total

    calibration = Conversations(conversations[: items // 2], model, tokenizer, backend)
    tried = {strength: ask(calibration, "calibration", "highlighted", strength, "all layers") for strength in STRENGTHS}
    picked = least_within_error(tried, items // 2)
    log(f"calibrated: λ = {picked:g}")

    test = Conversations(conversations[items // 2 :], model, tokenizer, backend)
    ask(test, "test", "highlighted", 0.0, "all layers")
    for layers in LAYERS:
        for strength in STRENGTHS[1:]:
            ask(test, "test", "highlighted", strength, layers)
        log(f"test: {layers}")
    for span in ("wrong", "neutral"):
        ask(test, "test", span, picked, "all layers")

    prices = {strength: perplexity(model, tokenizer, strength, LAYERS["all layers"], backend) for strength in STRENGTHS}
    log("perplexity")
    return report(pd.DataFrame(rows), prices, picked)
