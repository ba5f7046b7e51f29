import math

import pytest
import torch
from scipy.stats import rankdata, zscore

from rls_bench.steering.saliency import normalize_saliency

METHODS = ["zscore", "minmax", "rank"]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 5


def test_zscore_matches_scipy_along_the_last_axis():
    saliency = drawn(3, 17)
    torch.testing.assert_close(normalize_saliency(saliency), torch.tensor(zscore(saliency.numpy(), axis=-1)))


def test_minmax_spans_zero_to_one():
    result = normalize_saliency(drawn(2, 9), "minmax")
    assert result.amin(-1).tolist() == [0, 0]
    assert result.amax(-1).tolist() == [1, 1]


def test_rank_shares_the_mean_rank_of_equal_values():
    saliency = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])
    expected = (torch.tensor(rankdata(saliency.numpy())) - 1) / 4
    torch.testing.assert_close(normalize_saliency(saliency, "rank"), expected.float())


@pytest.mark.parametrize("method", METHODS)
def test_tokens_outside_the_mask_are_neutral_and_uncounted(method):
    saliency = drawn(12)
    mask = torch.arange(12) % 3 != 0
    result = normalize_saliency(saliency.where(mask, torch.tensor(1e6)), method, mask)
    assert (result[~mask] == 0).all()
    torch.testing.assert_close(result[mask], normalize_saliency(saliency[mask], method))


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_non_finite_values_count_as_outside_the_mask(method):
    clean = drawn(8)
    broken = clean.clone()
    broken[2], broken[5], broken[6] = math.nan, math.inf, -math.inf
    finite = broken.isfinite()
    torch.testing.assert_close(normalize_saliency(broken, method), normalize_saliency(clean, method, finite))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, -2.5, 1e-30, 3e38])
def test_a_constant_map_steers_nothing(method, value):
    assert (normalize_saliency(torch.full((2, 7), value), method) == 0).all()


def test_none_keeps_a_constant():
    assert normalize_saliency(torch.full((4,), 2.0), "none").tolist() == [2.0] * 4


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_empty_maps_and_masks_give_no_steering(method):
    assert normalize_saliency(torch.zeros(2, 0), method).shape == (2, 0)
    assert (normalize_saliency(drawn(2, 5), method, torch.zeros(5, dtype=torch.bool)) == 0).all()
    assert normalize_saliency(drawn(1), method).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-38, 1e300])
def test_extreme_scales_stay_finite(method, scale):
    saliency = drawn(16).double()
    torch.testing.assert_close(normalize_saliency(saliency * scale, method), normalize_saliency(saliency, method))


def test_results_are_float32_or_float64():
    assert normalize_saliency(torch.arange(4)).dtype == torch.float32
    assert normalize_saliency(drawn(4).to(torch.bfloat16)).dtype == torch.float32
    assert normalize_saliency(drawn(4).double()).dtype == torch.float64


def test_a_row_does_not_depend_on_its_neighbours():
    saliency = drawn(4, 11)
    for method in METHODS:
        alone = torch.stack([normalize_saliency(row, method) for row in saliency])
        torch.testing.assert_close(normalize_saliency(saliency, method), alone)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.tensor(1.0),), ValueError, "scalar"),
        ((torch.zeros(3), "softmax"), ValueError, "softmax"),
        ((torch.zeros(3), "zscore", torch.ones(3)), TypeError, "bool"),
        ((torch.zeros(3), "zscore", torch.ones(4, dtype=torch.bool)), ValueError, "broadcasts"),
        ((torch.zeros(3, dtype=torch.complex64),), TypeError, "real"),
        (([0.0, 1.0],), TypeError, "wanted a Tensor .* got list"),
        ((torch.zeros(3), "zscore", [True] * 3), TypeError, "mask: wanted a bool Tensor, got list"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        normalize_saliency(*arguments)
