"""torch.compile around the operator: how many graphs it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from rls_baselines.reference import steered_attention_oracle
from torch._dynamo.utils import counters

from rls_bench import steered_attention


def graphs(backend: str, calls: list[tuple[int, float]], **options: Any) -> int:
    """How many graphs calls over so many keys with such a strength compile to, each of them right."""
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(
        lambda q, k, v, b, s: steered_attention(q, k, v, b, s, backend=backend, enable_gqa=True, is_causal=True),
        backend="eager",
        fullgraph=True,
        **options,
    )
    for keys, strength in calls:
        query, key = torch.randn(1, 4, 8, 16), torch.randn(1, 2, keys, 16)
        value, bias = torch.randn(1, 2, keys, 16), torch.randn(keys)
        exact = steered_attention_oracle(query, key, value, bias, strength, is_causal=True).output
        torch.testing.assert_close(compiled(query, key, value, bias, strength).double(), exact, atol=1e-4, rtol=1e-4)
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("backend", ["cpu", "auto", "sdpa-cpu", "eager"])
def test_one_graph_serves_all_lengths_and_strengths(backend: str) -> None:
    calls = [(40 + 7 * turn, 1.0 + 0.5 * turn) for turn in range(6)]
    assert graphs(backend, calls, dynamic=True) == 1
    # The first call's sizes are constants until a second call shows that they aren't.
    assert graphs(backend, calls) == 2
