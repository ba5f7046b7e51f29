"""Tokens a second of a steered model against the same model unsteered, one decoding step of each in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from rls_bench.errors import MissingPackage
from rls_bench.integrations.transformers import steer

try:
    from transformers import DynamicCache
except ImportError as error:
    raise MissingPackage("decoding needs transformers; run: pip install 'rls-bench[models]'") from error

_WARM_UPS = 4


@dataclass(frozen=True)
class DecodeCost:
    """Medians over decoding steps; ``ratio`` is steered over unsteered tokens a second, the median over pairs of steps,
    with the ends of its 95 % bootstrap interval; ``cpu_ratio`` is the same of CPU time, which other jobs stretch less.
    """

    backend: str
    prompt_tokens: int
    steps: int
    unsteered_tokens_per_second: float
    steered_tokens_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float
    cpu_ratio: float


@torch.no_grad()
def measure(model: Any, *, backend: str = "auto", prompt_tokens: int = 200, steps: int = 100) -> DecodeCost:
    """Decode ``steps`` tokens after a random prompt twice, steered in every layer and not, a step of each in turns.

    Two caches grow alike, so that a pair of steps does the same work but for steering, and drift hits both.
    """
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, model.config.vocab_size, (1, prompt_tokens), generator=generator).to(model.device)
    bias = torch.zeros(prompt_tokens)
    bias[prompt_tokens // 4 : prompt_tokens // 2] = 1
    caches = [DynamicCache(config=model.config), DynamicCache(config=model.config)]
    for cache in caches:
        model(prompt, past_key_values=cache)
    token = prompt[:, -1:]
    steps_ns: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for step in range(_WARM_UPS + steps):
        for steered in (False, True) if step % 2 else (True, False):
            if steered:
                with steer(model, bias=bias, strength=1.0, backend=backend):
                    taken = _time_step(model, token, caches[1])
            else:
                taken = _time_step(model, token, caches[0])
            if step >= _WARM_UPS:
                steps_ns[steered].append(taken)
    # [unsteered or steered, step, elapsed or CPU].
    taken_ns = np.array(steps_ns, dtype=float)
    (unsteered, steered_ns), (ratios, cpu_ratios) = taken_ns[:, :, 0], (taken_ns[0] / taken_ns[1]).T
    interval = stats.bootstrap((ratios,), np.median, method="percentile", rng=0).confidence_interval
    return DecodeCost(
        backend,
        prompt_tokens,
        steps,
        float(1e9 / np.median(unsteered)),
        float(1e9 / np.median(steered_ns)),
        float(np.median(ratios)),
        float(interval.low),
        float(interval.high),
        float(np.median(cpu_ratios)),
    )


def _time_step(model: Any, token: torch.Tensor, cache: Any) -> tuple[int, int]:
    """Nanoseconds of one step by the clock, and of CPU time over all threads."""
    start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
    logits = model(token, past_key_values=cache).logits
    # Reading the answer waits for the device, as choosing the next token does.
    int(logits[0, -1].argmax())
    return time.perf_counter_ns() - start, time.process_time_ns() - cpu_start
