import pytest
import torch

from rls_bench.steering.controls import oracle, shuffled, uniform


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


MASK = torch.arange(64) >= 20


def test_shuffled_moves_the_same_values_inside_the_mask():
    saliency = drawn(3, 64)
    result = shuffled(saliency, generator(), MASK)
    assert torch.equal(result[:, ~MASK], saliency[:, ~MASK])
    assert torch.equal(result[:, MASK].sort(-1).values, saliency[:, MASK].sort(-1).values)
    assert (result[:, MASK] != saliency[:, MASK]).float().mean() > 0.8


def test_shuffled_rows_differ_and_repeat_by_seed():
    saliency = drawn(64).expand(2, -1).contiguous()
    result = shuffled(saliency, generator())
    assert not torch.equal(result[0], result[1])
    assert torch.equal(result, shuffled(saliency, generator()))


def test_shuffled_lands_everywhere_equally_often():
    saliency = torch.zeros(4000, 8)
    saliency[:, 0] = 1
    landed = shuffled(saliency, generator()).mean(0)
    assert ((landed - 1 / 8).abs() < 0.03).all()


def test_uniform_weighs_as_much_and_prefers_nothing():
    saliency = drawn(2, 64)
    result = uniform(saliency, MASK)
    assert torch.equal(result[:, ~MASK], saliency[:, ~MASK])
    assert (result[:, MASK].amax(-1) == result[:, MASK].amin(-1)).all()
    torch.testing.assert_close(result[:, MASK].square().sum(-1), saliency[:, MASK].square().sum(-1))


def test_oracle_puts_the_highest_values_on_the_span():
    saliency = drawn(5, 64)
    span = (torch.arange(64) >= 30) & (torch.arange(64) < 34)
    result = oracle(saliency, span, MASK)
    assert torch.equal(result[:, ~MASK], saliency[:, ~MASK])
    assert torch.equal(result[:, MASK].sort(-1).values, saliency[:, MASK].sort(-1).values)
    assert (result[:, span].amin(-1) >= result[:, MASK & ~span].amax(-1)).all()
    # Inside the span, tokens keep their order.
    assert torch.equal(result[:, span].argsort(-1), saliency[:, span].argsort(-1))


def test_oracle_of_a_map_that_is_right_already_changes_nothing():
    saliency = torch.tensor([0.1, 0.9, 0.8, 0.2])
    assert torch.equal(oracle(saliency, saliency > 0.5), saliency)


def test_oracle_takes_a_span_for_each_row():
    result = oracle(drawn(2, 6), torch.eye(6, dtype=torch.bool)[[1, 4]])
    assert result.argmax(-1).tolist() == [1, 4]


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="mask: wanted bool"):
        uniform(drawn(4), torch.ones(4))
    with pytest.raises(TypeError, match="span: wanted bool"):
        oracle(drawn(4), torch.ones(4))
    with pytest.raises(TypeError, match="floating point"):
        shuffled(torch.arange(4), generator())
