import math

import pytest
import torch

from rls_bench.steering import metrics


def test_entropy_of_uniform_and_certain_attention():
    torch.testing.assert_close(metrics.entropy(torch.full((2, 8), 1 / 8)), torch.full((2,), math.log(8)))
    assert metrics.entropy(torch.tensor([1.0, 0.0, 0.0])).item() == pytest.approx(0, abs=1e-7)


def test_kl_matches_torch():
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attention, steered = z.softmax(-1), (z + torch.linspace(0, 2, 16)).softmax(-1)
    expected = torch.nn.functional.kl_div(steered.log(), attention, reduction="none").sum(-1)
    torch.testing.assert_close(metrics.kl_divergence(attention, steered, eps=0), expected)


def test_entropy_reduction_is_relative_in_percent():
    assert metrics.entropy_reduction_percent(torch.tensor([3.0, 5.0]), torch.tensor([2.0, 4.0])) == pytest.approx(25)
    assert metrics.entropy_reduction_percent(torch.zeros(3), torch.zeros(3)) == 0


def test_mass_and_hit_on_a_span():
    attention = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    span = torch.tensor([False, True, True])
    torch.testing.assert_close(metrics.attention_mass(attention, span), torch.tensor([0.5, 0.9]))
    assert metrics.hit_at_1(attention, span).tolist() == [False, True]


def test_flips_count_both_ways():
    base = torch.tensor([True, True, False, False])
    steered = torch.tensor([True, False, True, True])
    result = metrics.flips(base, steered)
    assert (result.fixed, result.broken, result.total, result.net_points) == (2, 1, 4, 25.0)


def test_flips_refuse_other_items():
    with pytest.raises(ValueError, match="the items of base_correct"):
        metrics.flips(torch.ones(3), torch.ones(4))
