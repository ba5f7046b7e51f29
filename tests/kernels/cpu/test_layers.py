"""One filled-in call serves every layer of a model's pass."""

import pytest
import torch
from rls_kernels.cpu import launch
from rls_kernels.cpu.attention import steered_attention


@pytest.mark.parametrize("query_length", [1, 7])
@pytest.mark.parametrize("has_lengths", [False, True])
def test_each_layer_gets_what_a_call_of_its_own_would(query_length: int, has_lengths: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    bias, strength = torch.randn(2, 1, 20, generator=generator), torch.full((1, 4, 1), 2.0)
    lengths = torch.tensor([20, 13], dtype=torch.int32) if has_lengths else None

    def operands() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query = torch.randn(2, 4, query_length, 24, generator=generator)
        # Laid out as a model's projection leaves it, and not dense at all.
        key = torch.randn(2, 20, 2, 24, generator=generator).transpose(1, 2)
        return query, key, torch.randn(2, 2, 16, 20, generator=generator).transpose(2, 3)

    first = operands()
    layers = launch.Layers(launch.Operands(*first, bias, strength, lengths, 0.2, True))
    for layer in (first, operands(), first):
        alone = steered_attention(*layer, bias, strength, scale=0.2, is_causal=True, key_lengths=lengths)
        assert torch.equal(layers(*layer), alone)


def test_outputs_are_each_layers_own() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 16).unbind()
    layers = launch.Layers(
        launch.Operands(query, key, value, torch.randn(1, 1, 5), torch.ones(1, 1, 1), None, 0.25, False)
    )
    one = layers(query, key, value)
    kept = one.clone()
    layers(query.flip(2), key, value.neg())
    assert torch.equal(one, kept)
