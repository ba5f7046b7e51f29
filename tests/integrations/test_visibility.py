import pytest
import torch

from rls_bench.integrations.visibility import View, read_mask


def operands(queries: int, keys: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(batch, 4, queries, 8), torch.zeros(batch, 2, keys, 8)


def causal(queries: int, keys: int, last: int | None = None) -> torch.Tensor:
    last = keys if last is None else last
    return (torch.arange(keys) <= torch.arange(last - queries, last)[:, None])[None, None]


def test_no_mask_is_causal_for_prompts_and_open_for_a_token():
    assert read_mask(None, *operands(6, 6)).is_causal
    assert not read_mask(None, *operands(1, 6)).is_causal


def test_an_empty_static_cache_is_not_looked_at():
    assert read_mask(None, *operands(4, 9)).key_length == 4
    filled = causal(2, 9, last=6).expand(2, 1, 2, 9)
    assert read_mask(filled, *operands(2, 9)).key_length == 6


@pytest.mark.parametrize("additive", [False, True])
def test_padding_is_found_wherever_it_is(additive):
    valid = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0]]).bool()
    mask = causal(6, 6) & valid[:, None, None]
    if additive:
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    visibility = read_mask(mask, *operands(6, 6))
    assert visibility.is_causal
    assert torch.equal(visibility.valid, valid)
    assert torch.equal(read_mask(mask[:, :, -1:], *operands(1, 6)).valid, valid)


def test_a_mask_that_hides_nothing_needs_no_care():
    assert read_mask(causal(3, 5).expand(2, 1, 3, 5), *operands(3, 5)).valid is None
    assert read_mask(torch.ones(2, 1, 1, 5, dtype=torch.bool), *operands(1, 5)).valid is None


def test_views_hold_visible_keys_alone():
    query, key = operands(4, 6)
    value = torch.arange(6.0)[None, None, :, None].expand(2, 2, 6, 8)
    valid = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
    views: list[View] = []

    def call(view: View) -> torch.Tensor:
        views.append(view)
        return torch.ones(*view.query.shape[:3], 8)

    output = read_mask(causal(4, 6) & valid[:, None, None], query, key).attend(
        call, query, key, value, torch.arange(6.0)
    )
    assert [view.bias.tolist() for view in views] == [[3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert [view.query.shape[2] for view in views] == [3, 4]
    assert [view.value[0, 0, :, 0].tolist() for view in views] == [[3, 4, 5], [0, 1, 2, 3, 4, 5]]
    # The query of padding, key 2's, asks nothing.
    assert output[0, 0, :, 0].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "mask",
    [
        causal(6, 6) & ~causal(6, 6).tril(-3),
        torch.ones(1, 1, 6, 6, dtype=torch.bool),
        torch.where(causal(6, 6), 0.5, torch.finfo(torch.float32).min),
        causal(6, 6) & torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).bool(),
    ],
    ids=["sliding window", "both ways", "scores", "packed"],
)
def test_other_patterns_are_refused(mask):
    with pytest.raises(ValueError, match="wanted causal attention with padding"):
        read_mask(mask.expand(2, -1, -1, -1), *operands(6, 6))


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 6\)"):
        read_mask(torch.ones(2, 6), *operands(6, 6))
