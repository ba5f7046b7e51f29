"""The problems that tell the most about a machine, in the order of what they tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rls_bench.problems import suites
from rls_bench.problems.problem import Problem

# Numbers in suite ``standard``: Llama-3-8B prefill and decode, exact eps, SmolLM2, a longer decode, Qwen2-VL.
_STANDARD = (4, 9, 13, 2, 10, 7)
_PREFILL = 3


def problems(device: str) -> list[Problem]:
    """What to measure on ``device``, the most telling first: the published shape, then models, then what is rarer."""
    if device == "cpu":
        return _small()
    standard = suites.get("standard", device)
    prefill = standard[_PREFILL - 1]
    return [
        suites.get("published", device)[1],
        *(standard[number - 1] for number in _STANDARD),
        replace(prefill, return_stats=True, name="Llama-3-8B, statistics"),
        replace(prefill, strength_layout="bhq", name="Llama-3-8B, strength per query"),
    ]


def benched(device: str) -> list[Problem]:
    """Those that are measured over several launches, too."""
    return problems(device)[: 4 if device == "cuda" else 2]


def tuned(device: str) -> list[Problem]:
    """Those whose kernel has block sizes to choose."""
    return [problem for problem in problems(device) if problem.regime == "prefill"]


def _small() -> list[Problem]:
    """What two cores measure in a minute."""
    common: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    return [
        Problem(1, 8, 8, 512, 512, 64, 64, name="prefill", **common),
        Problem(1, 8, 2, 1, 4096, 64, 64, name="decode", **common),
        Problem(1, 8, 8, 256, 256, 64, 64, eps=1e-3, is_causal=True, name="exact eps", **common),
        Problem(1, 8, 8, 256, 256, 64, 64, return_stats=True, name="statistics", **common),
    ]
