"""The six facts of the design, each in float64 and independent of every kernel."""

from __future__ import annotations

import pytest
import torch
from rls_baselines.keyfold import column_weight
from rls_baselines.reference import steered_attention_oracle
from torch import Tensor

TIGHT = {"rtol": 0.0, "atol": 1e-13}
LENGTH, DIM = 33, 16


def operands(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """query, key, value [1, 2, 33, 16] and bias [1, 33] in float64."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(1, 2, LENGTH, DIM, generator=generator, dtype=torch.float64) for _ in range(3))
    return query, key, value, torch.randn(1, LENGTH, generator=generator, dtype=torch.float64)


def scores(query: Tensor, key: Tensor) -> Tensor:
    """Z = q kᵀ / √D."""
    return query @ key.mT * DIM**-0.5


def test_without_eps_it_is_one_fused_add() -> None:
    query, key, value, bias = operands()
    expected = (scores(query, key) + 3.0 * bias[:, None, None]).softmax(-1) @ value
    torch.testing.assert_close(steered_attention_oracle(query, key, value, bias, 3.0).output, expected, **TIGHT)


@pytest.mark.parametrize("eps", [1e-9, 1e-3])
def test_eps_takes_one_more_row_sum(eps: float) -> None:
    query, key, value, bias = operands()
    a, w = scores(query, key).softmax(-1), (3.0 * bias).exp()[:, None, :, None]
    expected = (a @ (w * value) + eps * (w * value).sum(-2, keepdim=True)) / (a @ w + eps * w.sum(-2, keepdim=True))
    torch.testing.assert_close(
        steered_attention_oracle(query, key, value, bias, 3.0, eps=eps).output, expected, **TIGHT
    )


def test_the_published_form_leaks_and_ours_does_not() -> None:
    query, key, value, bias = operands()
    bias[:, LENGTH // 2 :] = 1.0
    options = {"eps": 1e-6, "is_causal": True}
    moved = value.clone()
    moved[:, :, LENGTH // 2 :] += 100.0
    early = slice(0, LENGTH // 2)

    def early_rows(values: Tensor, published: bool) -> Tensor:
        result = steered_attention_oracle(query, key, values, bias, 20.0, published=published, **options)
        return result.output[:, :, early]

    assert torch.equal(early_rows(value, False), early_rows(moved, False))
    assert not torch.allclose(early_rows(value, True), early_rows(moved, True), atol=1.0)


def test_key_folding_is_the_same_attention() -> None:
    query, key, value, bias = operands()
    scale = DIM**-0.5
    weight = column_weight(scale)
    per_query = torch.rand(1, 2, LENGTH, dtype=torch.float64) * 5.0
    folded_query = torch.cat((query, weight * per_query[..., None]), dim=-1)
    column = (bias / (scale * weight))[:, None, :, None].expand(1, 2, LENGTH, 1)
    folded_key = torch.cat((key, column), dim=-1)
    folded = (folded_query @ folded_key.mT * scale).softmax(-1) @ value
    torch.testing.assert_close(folded, steered_attention_oracle(query, key, value, bias, per_query).output, **TIGHT)


def test_value_folding_is_the_same_attention() -> None:
    query, key, value, bias = operands()
    w = (3.0 * bias - (3.0 * bias).max()).exp()[:, None, :, None]
    sums = scores(query, key).softmax(-1) @ torch.cat((w * value, w.expand(1, 2, LENGTH, 1)), dim=-1)
    expected = steered_attention_oracle(query, key, value, bias, 3.0).output
    torch.testing.assert_close(sums[..., :-1] / sums[..., -1:], expected, **TIGHT)


@pytest.mark.parametrize("is_causal", [False, True])
def test_statistics_are_row_sums_of_the_same_pass(is_causal: bool) -> None:
    query, key, value, bias = operands()
    strength = 3.0
    found = steered_attention_oracle(query, key, value, bias, strength, is_causal=is_causal)
    z = scores(query, key)
    if is_causal:
        z = z.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf)
    steered = z + strength * bias[:, None, None]
    a, a_steered = z.softmax(-1), steered.softmax(-1)
    finite, finite_steered = z.masked_fill(z == -torch.inf, 0.0), steered.masked_fill(z == -torch.inf, 0.0)
    lse, lse_steered = z.logsumexp(-1), steered.logsumexp(-1)
    mean_bias = (a * bias[:, None, None]).sum(-1)
    torch.testing.assert_close(found.kl, lse_steered - lse - strength * mean_bias, **TIGHT)
    torch.testing.assert_close(found.entropy, lse - (a * finite).sum(-1), **TIGHT)
    torch.testing.assert_close(found.entropy_steered, lse_steered - (a_steered * finite_steered).sum(-1), **TIGHT)


def test_a_query_that_sees_no_key_gets_zeros() -> None:
    query, key, value, bias = operands()
    found = steered_attention_oracle(
        query, key, value, bias, 3.0, eps=1e-3, key_lengths=torch.tensor([0]), is_causal=True
    )
    assert all(bool((part == 0.0).all()) for part in found)
