"""``rls-bench evaluate digits``: what saliency buys, where, and whether it is the saliency that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from torch import Tensor

from rls_bench.evaluation.digits import checkpoints, grids
from rls_bench.evaluation.digits.answering import Control, Scene, Steering
from rls_bench.evaluation.digits.grids import SETS, Split
from rls_bench.evaluation.digits.report import report
from rls_bench.evaluation.evaluation import Evaluation
from rls_bench.evaluation.intervals import least_within_error
from rls_bench.steering import Gate, flips
from rls_bench.steering.gate import Signal
from rls_bench.steering.saliency import Normalizer

# Test grids of each set and training.
ITEMS = 1000
STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 6.0, 12.0)
# A head grounds where it puts this much of its unsteered attention on the cell asked for: four times its even share.
GROUNDING_MASS = 0.25
# A gate's threshold lets it open for this share of clean calibration grids.
_CLEAN_SHARE = 0.05


@dataclass(frozen=True)
class Calibrated:
    """What one seed learnt from its calibration split: the grounding heads, bool [LAYERS, HEADS], and the threshold of
    each gate."""

    heads: Tensor
    thresholds: dict[Signal, float]


def evaluate(
    seeds: Iterable[int] = checkpoints.SEEDS,
    items: int = ITEMS,
    backend: str = "auto",
    draw: int = 0,
    log: Callable[[str], None] = print,
) -> Evaluation:
    """Every experiment, for each training seed, on ``items`` test grids a set.

    Two thirds as many grids calibrate, but no more than for ITEMS: more items, or another ``draw`` of the test grids,
    put what was picked to another test and pick nothing anew.
    """
    calibration_items = max(2, min(items, ITEMS) * 2 // 3)
    calibrated, picks = {}, []
    for seed in seeds:
        log(f"seed {seed}: calibration")
        calibrated[seed], tried = _calibrate(seed, calibration_items, backend)
        picks += tried
    picked = _pick(pd.DataFrame(picks), calibration_items * len(calibrated))
    rows: list[dict[str, object]] = []
    for seed, found in calibrated.items():
        log(f"seed {seed}: test")
        rows += _test(seed, items, backend, draw, _settings(found, picked))
    return report(pd.DataFrame(rows), picked)


def _scene(seed: int, name: str, split: Split, items: int, backend: str, draw: int = 0) -> Scene:
    reader, presence = checkpoints.load(seed)
    generator = torch.Generator().manual_seed(100 * draw + 10 * seed + list(SETS).index(name))
    return Scene.read(reader, presence, grids.draw(items, split, SETS[name], generator), backend, seed)


def _accuracy(scene: Scene, steering: Steering) -> float:
    return 100 * float(scene.answer(steering).correct.float().mean())


def _calibrate(seed: int, items: int, backend: str) -> tuple[Calibrated, list[dict[str, object]]]:
    hard, clean = (_scene(seed, name, "calibration", items, backend) for name in ("hard", "clean"))
    heads = hard.span_mass() >= GROUNDING_MASS
    bias = clean.bias()
    thresholds = {
        signal: float(clean.signal(Gate(signal), heads, bias).quantile(1 - _CLEAN_SHARE)) for signal in get_args(Signal)
    }
    tried: list[dict[str, object]] = [
        {
            "normalizer": normalizer,
            "strength": strength,
            "accuracy": _accuracy(hard, Steering(strength, heads, normalizer)),
        }
        for normalizer in get_args(Normalizer)
        for strength in STRENGTHS
    ]
    return Calibrated(heads, thresholds), tried


def _pick(tried: pd.DataFrame, items: int) -> dict[str, float]:
    """For each normaliser, the λ to use, from its mean accuracy over the seeds' ``items`` calibration questions."""
    means = tried.groupby(["normalizer", "strength"]).accuracy.mean()
    return {str(name): least_within_error(means[name].to_dict(), items) for name in get_args(Normalizer)}


def _settings(found: Calibrated, picked: dict[str, float]) -> list[tuple[str, str, Steering]]:
    """Every experiment, setting and steering that is tried on each test set."""
    best, heads = picked["zscore"], found.heads
    settings = [("strength", "grounding heads", Steering(strength, heads)) for strength in STRENGTHS]
    settings += [
        ("heads", setting, Steering(best, chosen))
        for setting, chosen in (("grounding", heads), ("others", ~heads), ("all", torch.ones_like(heads)))
    ]
    settings += [("normalizer", name, Steering(picked[name], heads, name)) for name in get_args(Normalizer)]
    settings += [("control", control, Steering(best, heads, control=control)) for control in get_args(Control)]
    settings += [
        ("gate", signal, Steering(best, heads, gate=Gate(signal, threshold)))
        for signal, threshold in found.thresholds.items()
    ]
    return settings


def _test(
    seed: int, items: int, backend: str, draw: int, settings: list[tuple[str, str, Steering]]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in SETS:
        scene = _scene(seed, name, "test", items, backend, draw)
        base = scene.answer(Steering(0.0, settings[0][2].heads)).correct
        for experiment, setting, steering in settings:
            answers = scene.answer(steering)
            turned = flips(base, answers.correct)
            rows.append(
                {
                    "seed": seed,
                    "set": name,
                    "experiment": experiment,
                    "setting": setting,
                    "strength": steering.strength,
                    "heads": int(steering.heads.sum()),
                    "accuracy": 100 * float(answers.correct.float().mean()),
                    "gain": turned.net_points,
                    "fixed": turned.fixed,
                    "broken": turned.broken,
                    "steered_share": 100 * float(answers.openness.mean()),
                }
            )
    return rows
