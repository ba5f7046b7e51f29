import pytest
import torch

from rls_bench.attention import steered_attention
from rls_bench.integrations.visibility import View, Visibility, read_mask, without_mask


def operands(queries: int, keys: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(batch, 4, queries, 8), torch.zeros(batch, 2, keys, 8)


def causal(queries: int, keys: int, last: int | None = None) -> torch.Tensor:
    last = keys if last is None else last
    return (torch.arange(keys) <= torch.arange(last - queries, last)[:, None])[None, None]


def attended(visibility: Visibility, visible: torch.Tensor) -> None:
    """Hold ``attend`` to attention over ``visible`` bool [B, Lq, Lk] by its definition."""
    batch, queries, keys = visible.shape
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(batch, heads, length, 8, generator=generator)
        for heads, length in ((4, queries), (2, keys), (2, keys))
    )
    bias = torch.randn(batch, keys, generator=generator)

    def call(view: View) -> torch.Tensor:
        return steered_attention(
            view.query,
            view.key,
            view.value,
            view.bias,
            1.5,
            is_causal=view.is_causal,
            key_lengths=view.key_lengths,
            enable_gqa=True,
            backend="eager",
        )

    output = visibility.attend(call, query, key, value, bias)
    scores = query @ key.repeat_interleave(2, 1).mT / 8**0.5 + 1.5 * bias[:, None, None]
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1).nan_to_num(0)
    torch.testing.assert_close(output, weights @ value.repeat_interleave(2, 1), atol=1e-5, rtol=1e-4)


def test_without_a_mask_it_is_causal_both_ways_or_a_token():
    attended(without_mask(True, 6, 6, 0), causal(6, 6)[0].expand(2, -1, -1))
    attended(without_mask(False, 6, 6, 0), torch.ones(2, 6, 6, dtype=torch.bool))
    attended(without_mask(True, 1, 6, 5), torch.ones(2, 1, 6, dtype=torch.bool))


def test_an_empty_static_cache_is_not_looked_at():
    attended(without_mask(True, 4, 9, 0), causal(4, 9, last=4)[0].expand(2, -1, -1))
    with pytest.raises(ValueError, match="5 of them read before; got None"):
        without_mask(True, 4, 9, 5)


PADDING = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0, 1]]).bool()
PATTERNS = {
    "causal": causal(7, 7),
    "static cache": causal(5, 7, last=6),
    "padded": causal(7, 7) & PADDING[:, None, None],
    "window": causal(7, 7) & ~causal(7, 7).tril(-3),
    "window, padded": causal(7, 7)
    & ~causal(7, 7).tril(-3)
    & (torch.arange(7) >= torch.tensor([[0], [2]]))[:, None, None],
    "window over a cache": (causal(4, 7) & ~causal(4, 7).tril(0)),
    "chunks": causal(7, 7) & torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).bool(),
    "both ways": torch.ones(1, 1, 7, 7, dtype=torch.bool),
    "both ways in a picture": causal(7, 7)
    | torch.block_diag(torch.zeros(2, 2), torch.ones(3, 3), torch.zeros(2, 2)).bool(),
    "a token": (PADDING)[:, None, None],
    "a token, alike": PADDING[:1, None, None],
    "nothing": torch.zeros(2, 1, 4, 7, dtype=torch.bool),
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("additive", [False, True])
def test_patterns_are_seen_as_they_are(name, additive):
    visible = PATTERNS[name].expand(2, -1, -1, -1)
    mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min) if additive else visible
    attended(read_mask(mask, *operands(visible.shape[2], 7)), visible[:, 0])


def test_windows_are_views_of_the_keys_and_not_too_many_a_call():
    queries = 150
    query, key = torch.zeros(1, 4, queries, 8), torch.zeros(1, 2, queries, 8)
    views: list[View] = []
    banded = causal(queries, queries) & ~causal(queries, queries).tril(-3)

    def call(view: View) -> torch.Tensor:
        views.append(view)
        return torch.zeros(*view.query.shape[:3], 8)

    read_mask(banded, query, key).attend(call, query, key, key, torch.zeros(queries))
    assert [view.query.shape[0] for view in views] == [1, 64, 64, 19]
    assert {view.key.untyped_storage().data_ptr() for view in views} == {key.untyped_storage().data_ptr()}


def test_a_mask_that_hides_nothing_from_a_token_needs_no_care():
    assert read_mask(torch.ones(2, 1, 1, 5, dtype=torch.bool), *operands(1, 5)) == Visibility()


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
    ("mask", "words"),
    [
        (causal(6, 6) & ~torch.eye(6, dtype=torch.bool).roll(-2, 1), "wanted queries that see neighbouring keys"),
        (torch.where(causal(6, 6), 0.5, torch.finfo(torch.float32).min), "one that weighs scores"),
        (causal(6, 6).expand(1, 4, -1, -1), "wanted one for all heads"),
    ],
    ids=["holes", "scores", "heads"],
)
def test_other_patterns_are_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        read_mask(mask.expand(2, -1, -1, -1), *operands(6, 6))


def test_masks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 6\)"):
        read_mask(torch.ones(2, 6), *operands(6, 6))
