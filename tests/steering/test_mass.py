import math

import pytest
import torch

from rls_bench.steering import mass


def scores(seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(2, 3, 5, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


SPAN = (torch.arange(24) >= 4) & (torch.arange(24) < 9)


def span_mass(z: torch.Tensor) -> torch.Tensor:
    return z.softmax(-1)[..., SPAN].sum(-1)


@pytest.mark.parametrize("spread", [0.1, 3.0, 10.0])
def test_mass_comes_from_two_lses(spread):
    z = scores(spread=spread).float()
    steered = z + mass.PROBE_STRENGTH * SPAN
    read = mass.mass_from_lse(z.logsumexp(-1), steered.logsumexp(-1), mass.PROBE_STRENGTH)
    torch.testing.assert_close(read, span_mass(z), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", [0.05, 0.5, 0.95])
def test_strength_for_mass_hits_the_target(target):
    z = scores()
    strength = mass.strength_for_mass(span_mass(z), target)
    steered = span_mass(z + strength[..., None] * SPAN)
    torch.testing.assert_close(steered, torch.full_like(steered, target))


def test_a_span_with_no_mass_or_all_of_it_stays_as_it_is():
    assert mass.strength_for_mass(torch.tensor([0.0, 1.0]), 0.3).tolist() == [0, 0]
    assert mass.spotlight_strength(torch.tensor([0.0, 1.0]), 0.3).tolist() == [0, 0]


def test_spotlight_is_the_log_ratio_where_mass_falls_short():
    strength = mass.spotlight_strength(torch.tensor([0.1, 0.2, 0.6]), 0.4)
    torch.testing.assert_close(strength, torch.tensor([math.log(4), math.log(2), 0.0]))


def test_bisection_reaches_the_target_for_graded_saliency():
    z = scores()
    saliency = torch.rand(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1.0 * SPAN

    def mass_at(strength: torch.Tensor) -> torch.Tensor:
        # As the operator would say it: two LSEs, one with the span's keys lifted.
        steered = z + strength[..., None] * saliency
        lifted = steered + mass.PROBE_STRENGTH * SPAN
        return mass.mass_from_lse(steered.logsumexp(-1), lifted.logsumexp(-1), mass.PROBE_STRENGTH)

    strength = mass.solve_strength(mass_at, 0.8, like=z[..., 0])
    assert (strength >= 0).all()
    short = span_mass(z) < 0.8
    torch.testing.assert_close(mass_at(strength)[short], torch.full_like(z[..., 0], 0.8)[short], atol=1e-5, rtol=0)
    assert (strength[~short] == 0).all()


def test_bisection_stops_at_the_greatest_strength():
    never = mass.solve_strength(lambda strength: torch.zeros_like(strength), 0.5, like=torch.zeros(2), greatest=8.0)
    assert never.tolist() == [8.0, 8.0]


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, math.nan])
def test_targets_no_strength_can_reach_are_refused(target):
    with pytest.raises(ValueError, match="target: wanted"):
        mass.strength_for_mass(torch.tensor([0.5]), target)
    if target != 1:
        with pytest.raises(ValueError, match="target: wanted"):
            mass.spotlight_strength(torch.tensor([0.5]), target)
