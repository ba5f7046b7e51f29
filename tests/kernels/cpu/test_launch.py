"""One launch serves every call that is alike: layers of a model, other saliencies, several threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from rls_kernels.cpu import launch
from rls_kernels.cpu.attention import steered_attention
from torch import Tensor


def operands(query_length: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """query [2, 4, query_length, 24], and keys and values of 20 with 2 heads: laid out as a model's projection leaves
    them, and not dense at all."""
    query = torch.randn(2, 4, query_length, 24, generator=generator)
    key = torch.randn(2, 20, 2, 24, generator=generator).transpose(1, 2)
    return query, key, torch.randn(2, 2, 16, 20, generator=generator).transpose(2, 3)


@pytest.mark.parametrize("query_length", [1, 7])
@pytest.mark.parametrize("has_lengths", [False, True])
def test_each_layer_gets_what_a_call_of_its_own_would(query_length: int, has_lengths: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([20, 13], dtype=torch.int32) if has_lengths else None

    def steering() -> tuple[Tensor, Tensor]:
        return torch.randn(2, 1, 20, generator=generator), torch.rand(1, 4, 1, generator=generator)

    first = (*operands(query_length, generator), *steering())
    alike = launch.Launch(launch.Operands(*first, lengths, 0.2, True))
    for call in (first, (*operands(query_length, generator), *steering()), first):
        alone = steered_attention(*call, scale=0.2, is_causal=True, key_lengths=lengths)
        assert torch.equal(alike(*call, lengths), alone)


def test_a_number_is_a_strength_of_its_own_and_lengths_may_be_wide() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, bias = operands(5, generator), torch.randn(2, 1, 20, generator=generator)
    lengths = torch.tensor([20, 13])
    alike = launch.Launch(launch.Operands(*layer, bias, torch.ones(1, 1, 1), lengths, 0.2, False))
    for number in (0.0, -1.5, 3):
        strength = torch.full((1, 1, 1), float(number))
        alone = steered_attention(*layer, bias, strength, scale=0.2, key_lengths=lengths.int())
        assert torch.equal(alike(*layer, bias, number, lengths), alone)


def test_outputs_are_each_calls_own() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 16).unbind()
    bias, strength = torch.randn(1, 1, 5), torch.ones(1, 1, 1)
    alike = launch.Launch(launch.Operands(query, key, value, bias, strength, None, 0.25, False))
    one = alike(query, key, value, bias, strength)
    kept = one.clone()
    alike(query.flip(2), key, value.neg(), bias, strength)
    assert torch.equal(one, kept)


def test_threads_share_one() -> None:
    generator = torch.Generator().manual_seed(0)
    bias, strength = torch.randn(2, 1, 20, generator=generator), torch.ones(1, 4, 1)
    layers = [operands(3, generator) for _ in range(4)]
    alike = launch.Launch(launch.Operands(*layers[0], bias, strength, None, 0.2, True))
    alone = [alike(*layer, bias, strength) for layer in layers]

    def work(index: int) -> bool:
        return all(torch.equal(alike(*layers[index], bias, strength), alone[index]) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize(
    ("bias", "strength", "lengths"),
    [
        (torch.tensor([[[0.0, torch.nan]]]), 1.0, [2]),
        (torch.tensor([[[-torch.inf, 0.0]]]), 1.0, [2]),
        (torch.zeros(1, 1, 2), torch.tensor([[[1.0], [torch.inf]]]), [2]),
        (torch.tensor([[[0.0, -1e30]]]), 1e9, [2]),
        (torch.zeros(1, 1, 2), 1.0, [3]),
        (torch.zeros(1, 1, 2), 1.0, [-1]),
        (torch.zeros(1, 1, 2), 1.0, [2**32 + 1]),
    ],
)
def test_values_are_checked_where_they_are_read(bias: Tensor, strength: float | Tensor, lengths: list[int]) -> None:
    query, key, value = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 2, 8), torch.randn(1, 2, 2, 8)
    of_heads = torch.ones(1, 2, 1) if isinstance(strength, Tensor) else torch.ones(1, 1, 1)
    example = launch.Operands(query, key, value, torch.zeros(1, 1, 2), of_heads, torch.tensor([2]), 1.0, False)
    checked = launch.Launch(example, check_values=True)
    assert checked(query, key, value, torch.zeros(1, 1, 2), of_heads, torch.tensor([0])).eq(0).all()
    with pytest.raises(ValueError, match="wanted finite numbers, and lengths"):
        checked(query, key, value, bias, strength, torch.tensor(lengths))
