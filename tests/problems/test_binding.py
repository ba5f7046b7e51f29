"""Every wrong call of the operator, with the error that it must raise: what was wanted, and what came."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rls_bench import steered_attention

NAN, INF = float("nan"), float("inf")


def good() -> dict[str, Any]:
    """A right call: B 2, Hq 4, Hkv 2, Lq 3, Lk 5, D 8, Dv 6."""
    return {
        "query": torch.zeros(2, 4, 3, 8),
        "key": torch.zeros(2, 2, 5, 8),
        "value": torch.zeros(2, 2, 5, 6),
        "bias": torch.zeros(2, 5),
        "strength": 1.0,
        "enable_gqa": True,
    }


def holding(shape: tuple[int, ...], number: float) -> Tensor:
    """Zeros with one ``number`` in them."""
    tensor = torch.zeros(shape)
    tensor.view(-1)[-1] = number
    return tensor


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"query": [1.0]}, TypeError, "query: wanted a Tensor; got list"),
    ({"key": None}, TypeError, "key: wanted a Tensor; got NoneType"),
    ({"value": 3}, TypeError, "value: wanted a Tensor; got int"),
    (
        {"query": torch.zeros(4, 3, 8)},
        ValueError,
        "query: wanted 4 dimensions [batch, heads, length, head_dim]; got shape [4, 3, 8]",
    ),
    (
        {"key": torch.zeros(2, 5, 8)},
        ValueError,
        "key: wanted 4 dimensions [batch, heads, length, head_dim]; got shape [2, 5, 8]",
    ),
    (
        {"value": torch.zeros(1, 2, 2, 5, 6)},
        ValueError,
        "value: wanted 4 dimensions [batch, heads, length, head_dim]; got shape [1, 2, 2, 5, 6]",
    ),
    ({"query": torch.zeros(2, 4, 0, 8)}, ValueError, "query: wanted no empty dimension; got shape [2, 4, 0, 8]"),
    ({"key": torch.zeros(2, 2, 0, 8)}, ValueError, "key: wanted no empty dimension; got shape [2, 2, 0, 8]"),
    ({"value": torch.zeros(2, 2, 5, 0)}, ValueError, "value: wanted no empty dimension; got shape [2, 2, 5, 0]"),
    (
        {"query": torch.zeros(2, 4, 3, 8, dtype=torch.float64)},
        TypeError,
        "query: wanted dtype float32, bfloat16, float16; got float64",
    ),
    (
        {"query": torch.zeros(2, 4, 3, 8, dtype=torch.int64)},
        TypeError,
        "query: wanted dtype float32, bfloat16, float16; got int64",
    ),
    (
        {"key": torch.zeros(2, 2, 5, 8, dtype=torch.bfloat16)},
        TypeError,
        "key: wanted query's dtype float32; got bfloat16",
    ),
    (
        {"value": torch.zeros(2, 2, 5, 6, dtype=torch.float16)},
        TypeError,
        "value: wanted query's dtype float32; got float16",
    ),
    ({"key": torch.zeros(2, 2, 5, 8, device="meta")}, ValueError, "key: wanted query's device cpu; got meta"),
    ({"value": torch.zeros(2, 2, 5, 6, device="meta")}, ValueError, "value: wanted query's device cpu; got meta"),
    ({"key": torch.zeros(3, 2, 5, 8)}, ValueError, "key: wanted query's batch 2; got shape [3, 2, 5, 8]"),
    ({"value": torch.zeros(1, 2, 5, 6)}, ValueError, "value: wanted query's batch 2; got shape [1, 2, 5, 6]"),
    ({"key": torch.zeros(2, 2, 5, 7)}, ValueError, "key: wanted query's head_dim 8; got shape [2, 2, 5, 7]"),
    (
        {"value": torch.zeros(2, 2, 4, 6)},
        ValueError,
        "value: wanted key's heads and length [2, 5]; got shape [2, 2, 4, 6]",
    ),
    (
        {"value": torch.zeros(2, 4, 5, 6)},
        ValueError,
        "value: wanted key's heads and length [2, 5]; got shape [2, 4, 5, 6]",
    ),
    (
        {"enable_gqa": False},
        ValueError,
        "key: wanted query's 4 heads; got 2 (pass enable_gqa=True to group them)",
    ),
    (
        {"key": torch.zeros(2, 3, 5, 8), "value": torch.zeros(2, 3, 5, 6)},
        ValueError,
        "key: wanted heads that divide query's 4; got 3",
    ),
    (
        {"key": torch.zeros(2, 8, 5, 8), "value": torch.zeros(2, 8, 5, 6)},
        ValueError,
        "key: wanted heads that divide query's 4; got 8",
    ),
    ({"enable_gqa": 1}, TypeError, "enable_gqa: wanted a bool; got int"),
    ({"bias": 1.0}, TypeError, "bias: wanted a Tensor of shape [5], [2, 5], [2, 4, 5]; got float"),
    (
        {"bias": torch.zeros(2, 5, dtype=torch.float64)},
        TypeError,
        "bias: wanted dtype float32 or query's float32; got float64",
    ),
    (
        {"bias": torch.zeros(2, 5, dtype=torch.int32)},
        TypeError,
        "bias: wanted dtype float32 or query's float32; got int32",
    ),
    ({"bias": torch.zeros(2, 5, device="meta")}, ValueError, "bias: wanted query's device cpu; got meta"),
    ({"bias": torch.zeros(4)}, ValueError, "bias: wanted shape [5], [2, 5], [2, 4, 5]; got shape [4]"),
    ({"bias": torch.zeros(1, 5)}, ValueError, "bias: wanted shape [5], [2, 5], [2, 4, 5]; got shape [1, 5]"),
    ({"bias": torch.zeros(2, 2, 5)}, ValueError, "bias: wanted shape [5], [2, 5], [2, 4, 5]; got shape [2, 2, 5]"),
    ({"bias": torch.zeros(())}, ValueError, "bias: wanted shape [5], [2, 5], [2, 4, 5]; got shape []"),
    (
        {"bias": torch.zeros(2, 4, 3, 5)},
        ValueError,
        "bias: wanted shape [5], [2, 5], [2, 4, 5]; got shape [2, 4, 3, 5]",
    ),
    ({"bias": holding((2, 5), NAN)}, ValueError, "bias: wanted finite values; got 1 that are not"),
    ({"bias": holding((2, 5), INF)}, ValueError, "bias: wanted finite values; got 1 that are not"),
    ({"bias": torch.zeros(2, 5).to_sparse()}, TypeError, "bias: wanted a dense Tensor; got a sparse_coo one"),
    ({"strength": torch.zeros(4).to_sparse()}, TypeError, "strength: wanted a dense Tensor; got a sparse_coo one"),
    ({"key": torch.zeros(2, 4, 5, 8).to_sparse()}, TypeError, "key: wanted a dense Tensor; got a sparse_coo one"),
    ({"strength": "high"}, TypeError, "strength: wanted a number; got str"),
    ({"strength": True}, TypeError, "strength: wanted a number; got bool"),
    ({"strength": None}, TypeError, "strength: wanted a number; got NoneType"),
    ({"strength": NAN}, ValueError, "strength: wanted a finite number; got nan"),
    ({"strength": -INF}, ValueError, "strength: wanted a finite number; got -inf"),
    ({"strength": torch.zeros(3)}, ValueError, "strength: wanted shape [], [4], [2, 4], [2, 4, 3]; got shape [3]"),
    (
        {"strength": torch.zeros(4, 2)},
        ValueError,
        "strength: wanted shape [], [4], [2, 4], [2, 4, 3]; got shape [4, 2]",
    ),
    (
        {"strength": torch.zeros(2, 4, 5)},
        ValueError,
        "strength: wanted shape [], [4], [2, 4], [2, 4, 3]; got shape [2, 4, 5]",
    ),
    (
        {"strength": torch.zeros(4, dtype=torch.int64)},
        TypeError,
        "strength: wanted dtype float32 or query's float32; got int64",
    ),
    ({"strength": torch.zeros(4, device="meta")}, ValueError, "strength: wanted query's device cpu; got meta"),
    ({"strength": holding((4,), NAN)}, ValueError, "strength: wanted finite values; got 1 that are not"),
    ({"eps": -1e-9}, ValueError, "eps: wanted a number >= 0; got -1e-09"),
    ({"eps": NAN}, ValueError, "eps: wanted a finite number; got nan"),
    ({"eps": "1e-9"}, TypeError, "eps: wanted a number; got str"),
    ({"scale": 0.0}, ValueError, "scale: wanted a number > 0; got 0.0"),
    ({"scale": INF}, ValueError, "scale: wanted a finite number; got inf"),
    ({"scale": torch.ones(())}, TypeError, "scale: wanted a number; got Tensor"),
    ({"is_causal": 1}, TypeError, "is_causal: wanted a bool; got int"),
    ({"return_stats": "yes"}, TypeError, "return_stats: wanted a bool; got str"),
    ({"key_lengths": [3, 5]}, TypeError, "key_lengths: wanted an integer Tensor of shape [2]; got list"),
    ({"key_lengths": torch.ones(2)}, TypeError, "key_lengths: wanted dtype int32 or int64; got float32"),
    ({"key_lengths": torch.ones(3, dtype=torch.int64)}, ValueError, "key_lengths: wanted shape [2]; got shape [3]"),
    (
        {"key_lengths": torch.ones(2, dtype=torch.int64, device="meta")},
        ValueError,
        "key_lengths: wanted query's device cpu; got meta",
    ),
    ({"key_lengths": torch.tensor([-1, 5])}, ValueError, "key_lengths: wanted values from 0 to 5; got -1 to 5"),
    ({"key_lengths": torch.tensor([2, 6])}, ValueError, "key_lengths: wanted values from 0 to 5; got 2 to 6"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), WRONG, ids=[f"{i}-{next(iter(w[0]))}" for i, w in enumerate(WRONG)]
)
def test_a_wrong_call_says_what_was_wanted_and_what_came(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    # What is remembered of right calls, or of this one, lets none of them through.
    for also_right in ({}, {"strength": torch.ones(4)}, {"key_lengths": torch.tensor([3, 5])}):
        steered_attention(**{**good(), **also_right})
    for _ in range(2):
        with pytest.raises(error) as raised:
            steered_attention(**{**good(), **change})
        assert str(raised.value) == message


def test_the_call_that_the_wrong_ones_are_made_from_is_right() -> None:
    assert steered_attention(**good()).shape == (2, 4, 3, 6)
    assert len(WRONG) >= 40


def test_values_are_not_read_where_that_would_stall_a_stream() -> None:
    poisoned = {**good(), "bias": holding((2, 5), NAN)}
    assert steered_attention(**poisoned, check_values=False).isnan().any()
    with pytest.raises(ValueError, match="bias: wanted finite values"):
        steered_attention(**poisoned, check_values=True)
