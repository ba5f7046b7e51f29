"""Which keys a model's queries see, read off the attention mask that transformers builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """One call of the operator: queries and just the keys that they may see.

    query [b, Hq, lq, D], key and value [b, Hkv, lk, ·], bias [lk] or [b, lk]; ``rows`` of the batch are in it.
    ``is_causal`` and ``key_lengths`` as the operator takes them.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    rows: slice
    is_causal: bool
    key_lengths: Tensor | None = None


@dataclass(frozen=True)
class Visibility:
    """Queries see the keys up to their own place, except those that are padding.

    Only the first ``key_length`` keys count (a static cache holds room beyond them), and queries are the last of them.
    ``valid`` is bool [B, key_length], false on padding, or None where there is none.
    """

    is_causal: bool
    key_length: int
    valid: Tensor | None

    def attend(self, call: Callable[[View], Tensor], query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Run ``call`` on views that hold these keys alone: [B, Hq, Lq, Dv], 0 for queries that are padding.

        query [B, Hq, Lq, D], key and value [B, Hkv, >= key_length, ·], bias [>= key_length] or [B, >= key_length].
        The operator knows padding at the end only, wherever a batch has it elsewhere (generate() pads on the left): a
        single query doesn't mind the order of its keys, so padding is moved to the end; prompts go row by row.
        """
        length, batch = self.key_length, query.shape[0]
        if length < key.shape[2]:
            key, value, bias = key[:, :, :length], value[:, :, :length], bias[..., :length]
        if self.valid is None:
            return call(View(query, key, value, bias, slice(0, batch), self.is_causal))
        if query.shape[2] == 1:
            return call(self._packed(query, key, value, bias))
        output = query.new_zeros(*query.shape[:3], value.shape[3])
        earlier = length - query.shape[2]
        for row in range(batch):
            kept = self.valid[row].nonzero().squeeze(-1)
            asked = kept[kept >= earlier] - earlier
            if len(asked):
                rows = slice(row, row + 1)
                own_bias = bias[row] if bias.dim() == 2 else bias
                view = View(query[rows, :, asked], key[rows, :, kept], value[rows, :, kept], own_bias[kept], rows, True)
                output[rows, :, asked] = call(view)
        return output

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> View:
        """One query a row, with the keys that it sees moved to the front."""
        order, lengths = self._packing
        places, batch = order[:, None, :, None], query.shape[0]
        return View(
            query,
            key.take_along_dim(places, 2),
            value.take_along_dim(places, 2),
            bias.expand(batch, -1).take_along_dim(order, 1),
            slice(0, batch),
            False,
            lengths,
        )

    @cached_property
    def _packing(self) -> tuple[Tensor, Tensor]:
        """The places of the keys with the visible ones first, [B, key_length], and how many those are, [B]."""
        assert self.valid is not None
        return (~self.valid).to(torch.uint8).argsort(dim=-1, stable=True), self.valid.sum(-1)


def read_mask(mask: Tensor | None, query: Tensor, key: Tensor) -> Visibility:
    """What ``mask`` lets query [B, Hq, Lq, D] see of key [B, Hkv, Lk, D].

    ``mask`` is None (causal, as transformers' sdpa takes it) or [B or 1, 1, Lq, Lk], bool or additive. Raises
    ValueError where it is anything but causal with padding (a sliding window that hides keys, packed sequences, a bias
    of scores), since steering would then be another thing than asked for.
    """
    query_length, key_length = query.shape[2], key.shape[2]
    if mask is None:
        # With more keys than queries and no mask, the cache is a static one, still empty: its room is not looked at.
        return Visibility(query_length > 1, key_length if query_length == 1 else query_length, None)
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2:] != (query_length, key_length):
        raise ValueError(
            f"attention mask: wanted [batch, 1, {query_length}, {key_length}], got {tuple(mask.shape)}; "
            "load the model with attn_implementation='sdpa' or 'eager' to steer it"
        )
    visible = mask if mask.dtype == torch.bool else mask == 0
    # Additive masks of transformers hold 0 or the dtype's least number, nothing between.
    only_hides = mask.dtype == torch.bool or bool((visible | (mask <= torch.finfo(mask.dtype).min / 2)).all())
    visible = visible[:, 0].expand(query.shape[0], -1, -1)
    last = visible[:, -1]
    if only_hides and query_length == 1:
        return Visibility(False, key_length, None if bool(last.all()) else last)
    seen = last.any(0).nonzero()
    # A growing cache ends with the last query's key; a static one has room behind it.
    for end in dict.fromkeys((key_length, int(seen.max()) + 1 if len(seen) else 0)):
        if only_hides and end >= query_length and _is_causal(visible, last, end):
            valid = last[:, :end]
            return Visibility(True, end, None if bool(valid.all()) else valid)
    raise ValueError(
        "attention mask: wanted causal attention with padding, got another pattern (a sliding window, packed sequences "
        "or a bias of scores); steer only layers without it, by heads="
    )


def _is_causal(visible: Tensor, valid: Tensor, end: int) -> bool:
    """Whether each query sees the ``valid`` keys up to its own place, the last query's place being ``end - 1``."""
    query_length, key_length = visible.shape[1:]
    keys = torch.arange(key_length, device=visible.device)
    places = torch.arange(end - query_length, end, device=visible.device)
    return torch.equal(visible, (keys <= places[:, None]) & valid[:, None])
