"""Which keys a model's queries see, read off the attention mask that transformers builds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Queries of a sliding window that go into one call, each with keys of its own: backends that copy their keys would
# need as many copies of a window.
_WINDOWS_A_CALL = 64


class View(NamedTuple):
    """One call of the operator: queries and just the keys that they may see.

    query [b, Hq, lq, D], key and value [b, Hkv, lk, ·], bias [lk] or [b, lk]. They are ``queries`` of the pass, in
    ``rows`` of its batch. ``is_causal`` and ``key_lengths`` as the operator takes them. ``stacked``: the
    queries of one row lie along the batch axis, each with its own window of keys.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor
    rows: slice
    queries: slice
    is_causal: bool
    key_lengths: Tensor | None = None
    stacked: bool = False

    def of_pass(self, per_query: Tensor) -> Tensor:
        """[b, Hq, lq] of this call as [rows, Hq, queries]."""
        return per_query.permute(2, 1, 0) if self.stacked else per_query

    def of_call(self, per_query: Tensor) -> Tensor:
        """[1 or rows, Hq or 1, queries or 1] as the [b or 1, Hq or 1, lq or 1] of this call."""
        return per_query.permute(2, 1, 0) if self.stacked else per_query


class Run(NamedTuple):
    """Neighbouring queries that see neighbouring keys, counted over those that any query of the row sees.

    The first query sees the keys from ``first`` to ``end``. Each further one sees one key more (``causal``), the same
    (``alike``), or a window that has moved on by one (``window``).
    """

    queries: slice
    first: int
    end: int
    kind: Literal["causal", "alike", "window"]

    @property
    def size(self) -> int:
        return int(self.queries.stop - self.queries.start)


@dataclass(frozen=True)
class Rows:
    """Sequences of a batch that see alike: which of their keys are seen at all (None: each), and by which queries."""

    rows: slice
    keys: Tensor | slice | None
    runs: list[Run]


@dataclass(frozen=True)
class Visibility:
    """What every query of a pass sees of one layer's keys, as few calls of an operator that knows causal masks alone.

    ``groups`` hold it for several queries. For a single query ``seen`` bool [B, Lk] does, or nothing where it sees
    all keys.
    """

    groups: tuple[Rows, ...] = ()
    seen: Tensor | None = None

    def attend(self, call: Callable[[View], Tensor], query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Run ``call`` on views that hold visible keys alone: [B, Hq, Lq, Dv], 0 for queries that see nothing.

        query [B, Hq, Lq, D], key and value [B, Hkv, Lk, ·], bias [Lk] or [B, Lk].
        """
        batch, queries = query.shape[0], query.shape[2]
        if self.seen is not None:
            return call(self._packed(query, key, value, bias))
        if not self.groups:
            return call(View(query, key, value, bias, slice(0, batch), slice(0, queries), False))
        only = self.groups[0]
        if len(self.groups) == 1 and len(only.runs) == 1 and only.runs[0].kind != "window":
            view = next(_views(only, query, key, value, bias))
            if view.query.shape == query.shape:
                return call(view)
        output = query.new_zeros(*query.shape[:3], value.shape[3])
        for group in self.groups:
            for view in _views(group, query, key, value, bias):
                output[view.rows, :, view.queries] = _unstacked(view, call(view))
        return output

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> View:
        """One query a row, with the keys that it sees moved to the front: it doesn't mind their order."""
        order, lengths = self._packing
        places, batch = order[:, None, :, None], query.shape[0]
        return View(
            query,
            key.take_along_dim(places, 2),
            value.take_along_dim(places, 2),
            bias.expand(batch, -1).take_along_dim(order, 1),
            slice(0, batch),
            slice(0, 1),
            False,
            lengths,
        )

    @cached_property
    def _packing(self) -> tuple[Tensor, Tensor]:
        """Where the keys that a row sees are, [B, most that any sees], and how many those are, [B]."""
        assert self.seen is not None
        lengths = self.seen.sum(-1)
        order = (~self.seen).to(torch.uint8).argsort(dim=-1, stable=True)
        return order[:, : max(1, int(lengths.max()))], lengths


def without_mask(is_causal: bool, query_length: int, key_length: int, past: int) -> Visibility:
    """What transformers' attention shows where it is given no mask; ``past`` tokens were read in earlier passes.

    With more keys than queries and nothing read before, a causal layer's cache is a static one, still empty: the room
    behind the queries is not looked at. Raises ValueError where a causal layer's keys are none of these.
    """
    if query_length == 1 or not is_causal:
        return Visibility()
    if past and key_length != query_length:
        raise ValueError(
            f"attention mask: wanted one for {query_length} queries over {key_length} keys, {past} of them read "
            "before; got None"
        )
    run = Run(slice(0, query_length), 0, 1, "causal")
    keys = None if key_length == query_length else slice(0, query_length)
    return Visibility((Rows(slice(None), keys, [run]),))


def read_mask(mask: Tensor, query: Tensor, key: Tensor) -> Visibility:
    """What ``mask`` lets query [B, Hq, Lq, D] see of key [B, Hkv, Lk, D].

    ``mask`` is [B or 1, 1, Lq, Lk], bool or additive. Any pattern will do in which a query sees neighbours among the
    keys that its row sees at all: causal, both ways, padded, windowed, chunked, packed. Raises ValueError for others,
    and for masks that weigh scores rather than hide keys, since steering would then be another thing than asked for.
    """
    batch, query_length, key_length = query.shape[0], query.shape[2], key.shape[2]
    if mask.dim() == 4 and mask.shape[1] != 1:
        raise ValueError(
            f"attention mask: wanted one for all heads, got {mask.shape[1]}; steer only other layers, by heads="
        )
    if mask.dim() != 4 or mask.shape[2:] != (query_length, key_length):
        raise ValueError(
            f"attention mask: wanted [batch, 1, {query_length}, {key_length}], got {tuple(mask.shape)}; "
            "load the model with attn_implementation='sdpa' or 'eager' to steer it"
        )
    visible = mask if mask.dtype == torch.bool else mask == 0
    # Additive masks of transformers hold 0 or the dtype's least number, nothing between.
    if mask.dtype != torch.bool and not bool((visible | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
        raise ValueError(
            "attention mask: wanted one that hides keys, got one that weighs scores; steer only layers without it, "
            "by heads="
        )
    visible = visible[:, 0]
    alike = visible.shape[0] == 1 or bool((visible == visible[:1]).all())
    if query_length == 1:
        if bool(visible.all()):
            return Visibility()
        if not alike:
            return Visibility(seen=visible[:, 0].expand(batch, -1))
    if alike:
        return Visibility((_read_rows(slice(0, batch), visible[0]),))
    return Visibility(tuple(_read_rows(slice(row, row + 1), visible[row]) for row in range(batch)))


def _read_rows(rows: slice, visible: Tensor) -> Rows:
    """The runs of ``visible`` bool [Lq, Lk]."""
    seen = visible.any(0)
    kept = seen.nonzero().squeeze(-1)
    if len(kept) == 0:
        return Rows(rows, None, [])
    first, last = int(kept[0]), int(kept[-1])
    keys: Tensor | slice | None = kept
    if last - first + 1 == len(kept):
        keys = None if len(kept) == len(seen) else slice(first, last + 1)
    counts = visible.sum(-1)
    within = visible[:, kept].to(torch.uint8)
    firsts = within.argmax(-1)
    lasts = within.shape[1] - 1 - within.flip(-1).argmax(-1)
    if not bool(((lasts - firsts + 1 == counts) | (counts == 0)).all()):
        raise ValueError(
            "attention mask: wanted queries that see neighbouring keys (causal, windowed, packed, both ways, with "
            "padding), got another pattern; steer only layers without it, by heads="
        )
    return Rows(rows, keys, _runs(firsts.tolist(), counts.tolist()))


_KINDS: dict[tuple[int, int], Literal["causal", "alike", "window"]] = {
    (0, 1): "causal",
    (0, 0): "alike",
    (1, 1): "window",
}


def _runs(firsts: list[int], counts: list[int]) -> list[Run]:
    """Queries that see as their neighbour does, as runs; those that see nothing are in none."""
    runs: list[Run] = []
    for place, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        if count == 0:
            continue
        end = first + count
        if runs and runs[-1].queries.stop == place:
            last, size = runs[-1], runs[-1].size
            moved = (first - firsts[place - 1], end - firsts[place - 1] - counts[place - 1])
            kind = _KINDS.get(moved)
            if kind is not None and (size == 1 or kind == last.kind):
                runs[-1] = Run(slice(last.queries.start, place + 1), last.first, last.end, kind)
                continue
        runs.append(Run(slice(place, place + 1), first, end, "alike"))
    return runs


def _views(group: Rows, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Iterator[View]:
    query, key, value = query[group.rows], key[group.rows], value[group.rows]
    bias = bias[group.rows] if bias.dim() == 2 else bias
    if group.keys is not None:
        key, value, bias = key[:, :, group.keys], value[:, :, group.keys], bias[..., group.keys]
    rows = slice(0, query.shape[0]) if group.rows.start is None else group.rows
    for run in group.runs:
        if run.kind == "window":
            yield from _windows(run, rows, query, key, value, bias)
            continue
        end = run.end + (run.size - 1 if run.kind == "causal" else 0)
        seen = slice(run.first, end)
        # Of causal queries the operator hides later keys by itself; their first sees whatever comes before it.
        yield View(
            query[:, :, run.queries],
            key[:, :, seen],
            value[:, :, seen],
            bias[..., seen],
            rows,
            run.queries,
            run.kind == "causal",
        )


def _windows(run: Run, rows: slice, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Iterator[View]:
    """Each query of a sliding window as a sequence of its own, over views of the keys: nothing is copied."""
    width = run.end - run.first
    for row, start in itertools.product(range(query.shape[0]), range(0, run.size, _WINDOWS_A_CALL)):
        count = min(_WINDOWS_A_CALL, run.size - start)
        queries = slice(run.queries.start + start, run.queries.start + start + count)
        windows = slice(run.first + start, run.first + start + count)
        own_bias = bias[row] if bias.dim() == 2 else bias
        yield View(
            query[row, :, queries].transpose(0, 1)[:, :, None],
            # [heads, window, dim, key] of the unfolded axis.
            key[row].unfold(1, width, 1)[:, windows].permute(1, 0, 3, 2),
            value[row].unfold(1, width, 1)[:, windows].permute(1, 0, 3, 2),
            own_bias.unfold(0, width, 1)[windows],
            slice(rows.start + row, rows.start + row + 1),
            queries,
            False,
            stacked=True,
        )


def _unstacked(view: View, output: Tensor) -> Tensor:
    """[b, Hq, lq, Dv] of a call as [rows, Hq, queries, Dv]."""
    return output.permute(2, 1, 0, 3) if view.stacked else output
