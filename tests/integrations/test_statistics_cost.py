"""What ``control.stats`` adds to a steered decode, in turns with the same decode without."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import DynamicCache

from rls_bench.errors import MissingPackage
from rls_bench.evaluation import smollm2
from rls_bench.integrations.transformers import steer
from rls_bench.machines.threads import one_thread

PROMPT, STEPS, WARM_UPS = 200, 120, 6


@pytest.mark.quiet
def test_statistics_add_at_most_a_twentieth_to_a_decode_of_smollm2() -> None:
    try:
        model, _ = smollm2.load()
    except MissingPackage as error:
        pytest.skip(str(error))
    prompt = torch.randint(3, model.config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(PROMPT)
    bias[PROMPT // 4 : PROMPT // 2] = 1
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    # [step, without or with statistics, by the clock or of CPU time], nanoseconds.
    taken = np.zeros((STEPS + WARM_UPS, 2, 2))
    with torch.no_grad(), one_thread():
        for cache in caches:
            model(prompt, past_key_values=cache)
        for step in range(STEPS + WARM_UPS):
            for watched in (0, 1) if step % 2 else (1, 0):
                with steer(model, bias=bias, strength=1.0, stats=bool(watched)):
                    start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
                    int(model(prompt[:, -1:], past_key_values=caches[watched]).logits[0, -1].argmax())
                    taken[step, watched] = time.perf_counter_ns() - start, time.process_time_ns() - cpu_start
    ratios = taken[WARM_UPS:, 1] / taken[WARM_UPS:, 0]
    for name, ratio in zip(("clock", "CPU time"), ratios.T, strict=True):
        interval = stats.bootstrap((ratio,), np.median, method="percentile", rng=0).confidence_interval
        print(f"{name}: {np.median(ratio):.3f} × [{interval.low:.3f}, {interval.high:.3f}]")
    assert np.median(ratios[:, 0]) <= 1.05
