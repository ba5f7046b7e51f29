"""Each preset against the formula of the paper it comes from, written out on the attention matrix."""

import pytest
import torch

from rls_bench.steering import presets
from rls_bench.steering.mass import mass_from_lse

SPAN = torch.tensor([False, True, True, False, False, True, False, False])
Z = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
A = Z.softmax(-1)


def steered(arguments) -> torch.Tensor:
    return (Z + arguments["strength"] * arguments["bias"]).softmax(-1)


def renormalised(attention: torch.Tensor) -> torch.Tensor:
    return attention / attention.sum(-1, keepdim=True)


def test_pasta_scales_attention_off_the_span_and_renormalises():
    heads = torch.tensor([[True, False, False], [False, True, True]])
    arguments = presets.pasta(SPAN, heads, alpha=0.01)
    torch.testing.assert_close(steered(arguments), renormalised(torch.where(SPAN, A, 0.01 * A)))
    assert torch.equal(arguments["heads"], heads)


def test_instaboost_multiplies_attention_on_the_span_and_renormalises():
    arguments = presets.instaboost(SPAN, multiplier=5.0)
    torch.testing.assert_close(steered(arguments), renormalised(torch.where(SPAN, 5.0 * A, A)))


def test_guide_adds_delta_to_logits_of_the_span_in_chosen_layers():
    arguments = presets.guide(SPAN, range(1, 3), model_layers=4, model_heads=3, delta=2.5)
    torch.testing.assert_close(steered(arguments), torch.where(SPAN, Z + 2.5, Z).softmax(-1))
    assert arguments["heads"].all(-1).tolist() == [False, True, True, False]


def test_spotlight_lifts_the_span_where_its_mass_falls_short():
    arguments = presets.spotlight(SPAN, target=0.5)
    psi = A[..., SPAN].sum(-1, keepdim=True)
    expected = torch.where(SPAN & (psi < 0.5), Z + (0.5 / psi).log(), Z).softmax(-1)
    lse, lifted = Z.logsumexp(-1), (Z + 2.0 * arguments["bias"]).logsumexp(-1)
    strength = arguments["schedule"].rule(mass_from_lse(lse, lifted, 2.0)) * arguments["strength"]
    torch.testing.assert_close((Z + strength[..., None] * arguments["bias"]).softmax(-1), expected)
    assert 0 < (strength > 0).float().mean() < 1


def test_factors_must_be_positive():
    with pytest.raises(ValueError, match="alpha"):
        presets.pasta(SPAN, torch.ones(1, 1, dtype=torch.bool), alpha=0.0)
    with pytest.raises(ValueError, match="multiplier"):
        presets.instaboost(SPAN, multiplier=-1.0)


@pytest.mark.parametrize("preset", [presets.instaboost, presets.spotlight])
def test_a_span_that_is_no_mask_is_refused(preset):
    with pytest.raises(TypeError, match=r"span: wanted a bool Tensor .* got torch.float32"):
        preset(torch.zeros(4))


@pytest.mark.parametrize("span", [[3, 4, 5], (5, 3, 4), range(3, 6), slice(3, 6)])
def test_spotlight_takes_positions(span):
    steering = presets.spotlight(span, target=0.3)
    assert steering["bias"].tolist() == [0, 0, 0, 1, 1, 1]
    assert steering["pad_bias"]
    assert "pad_bias" not in presets.spotlight(torch.tensor([True, False]))


@pytest.mark.parametrize("span", [[], [-1], [True], [1.5], slice(3, None), range(0)])
def test_positions_that_are_none_are_named(span):
    with pytest.raises(ValueError, match="span: wanted"):
        presets.spotlight(span)
