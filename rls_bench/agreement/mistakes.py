"""The usual mistakes of an attention kernel, each as another question to the oracle.

A kernel that makes one gives, to the last digits, what the oracle gives on other inputs: those without the bias, with
the causal mask moved by a key, with another key head. So each wrong form here is right arithmetic, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from rls_baselines.reference import steered_attention_oracle
from torch import Tensor
from torch.nn.functional import pad

from rls_bench.problems.inputs import Inputs

# Keys that a tile may hold.
_TILES = (8, 16, 32, 64, 128, 256)
_LN2 = math.log(2.0)
# Inputs as a kernel that makes the mistake takes them.
Change = Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class Mistake:
    """``words`` name it. ``change`` makes the inputs that have the wrong output; ``kv_head`` gives the key head that a
    query head reads; ``published`` asks for the form whose eps reaches hidden keys.
    """

    words: str
    change: Change = lambda inputs: inputs
    kv_head: Callable[[int], int] | None = None
    published: bool = False


def outputs(mistake: Mistake, inputs: Inputs, rows: Tensor, heads: Sequence[tuple[int, int]]) -> Tensor:
    """The output of some ``heads``, (batch, head), with the mistake made: float64 [heads, rows, Dv]."""
    group = inputs.problem.group_size
    kv_head = mistake.kv_head or (lambda head: head // group)
    changed = mistake.change(inputs)
    return torch.stack([_one(changed, batch, head, kv_head(head), rows, mistake.published) for batch, head in heads])


def _one(inputs: Inputs, batch: int, head: int, kv_head: int, rows: Tensor, published: bool) -> Tensor:
    lengths = inputs.key_lengths
    # An axis of 1 stands for all.
    bias, strength = (
        each[min(batch, each.shape[0] - 1), min(head, each.shape[1] - 1)][None, None]
        for each in (inputs.bias, inputs.strength)
    )
    return steered_attention_oracle(
        inputs.query[batch, head][None, None],
        inputs.key[batch, kv_head][None, None],
        inputs.value[batch, kv_head][None, None],
        bias,
        strength,
        eps=inputs.problem.eps,
        is_causal=inputs.problem.is_causal,
        key_lengths=None if lengths is None else lengths[batch : batch + 1],
        scale=inputs.scale,
        rows=rows,
        published=published,
    ).output[0, 0]


def of(inputs: Inputs) -> Iterator[Mistake]:
    """The mistakes that would show on ``inputs``, the likelier first."""
    yield from _of_steering(inputs)
    yield from _of_masks(inputs)
    yield from _of_heads(inputs)
    yield from _of_numbers(inputs)
    yield from _of_tails(inputs)
    yield from _of_layouts(inputs)


def _of_steering(inputs: Inputs) -> Iterator[Mistake]:
    yield Mistake("the bias is dropped (λ b is never added)", _steered(lambda strength: torch.zeros_like(strength)))
    yield Mistake("λ is ignored (b is added as it is)", _steered(lambda strength: torch.ones_like(strength)))
    yield Mistake("λ's sign is flipped", _steered(lambda strength: -strength))
    yield Mistake("λ is applied twice", _steered(lambda strength: strength * strength))
    if inputs.strength.shape[1] > 1:
        yield Mistake("every head takes the first head's λ", _steered(lambda strength: strength[:, :1]))
    if inputs.strength.shape[0] > 1:
        yield Mistake("every batch takes the first batch's λ", _steered(lambda strength: strength[:1]))
    if inputs.strength.shape[2] > 1:
        yield Mistake("every query takes the first query's λ", _steered(lambda strength: strength[:, :, :1]))
    if inputs.bias.shape[0] > 1:
        yield Mistake("every batch takes the first batch's bias", _biased(lambda bias: bias[:1]))
    if inputs.bias.shape[1] > 1:
        yield Mistake("every head takes the first head's bias", _biased(lambda bias: bias[:, :1]))
        if (group := inputs.problem.group_size) > 1:
            yield Mistake(
                "the bias is read by key head rather than by query head",
                _biased(lambda bias: bias[:, torch.arange(bias.shape[1], device=bias.device) // group]),
            )
    for step, side in ((1, "before"), (-1, "after")):
        yield Mistake(f"each key takes the bias of the key {side} it", _biased(_moved(step)))


def _of_masks(inputs: Inputs) -> Iterator[Mistake]:
    problem = inputs.problem
    if problem.masks_causally:
        gap = problem.key_length - problem.query_length
        yield Mistake("the causal mask lets each query see one key too many (off by one)", _shifted(1))
        yield Mistake("the causal mask hides one key too many, a query's own (off by one)", _shifted(-1))
        if gap:
            yield Mistake("the causal mask is aligned top-left rather than bottom-right", _shifted(-gap))
        if gap not in (0, 1):
            yield Mistake("the causal mask is aligned top-left, and off by one", _shifted(1 - gap))
        if gap not in (0, -1):
            yield Mistake("the causal mask is aligned top-left, and off by one the other way", _shifted(-1 - gap))
        yield Mistake("the causal mask is left out", lambda each: _with(each, is_causal=False))
    elif problem.query_length > 1:
        yield Mistake("a causal mask is applied that nobody asked for", lambda each: _with(each, is_causal=True))
    if inputs.key_lengths is not None:
        yield Mistake("key_lengths are ignored", lambda each: replace(each, key_lengths=None))
        yield Mistake("key_lengths are off by one, a key too many", _of_length(lambda n, most: min(n + 1, most)))
        yield Mistake("key_lengths are off by one, a key too few", _of_length(lambda n, most: max(n - 1, 0)))
        if len(inputs.key_lengths) > 1:
            yield Mistake("every batch takes the first batch's key_lengths", _first_length)
    if problem.eps > 0.0:
        yield Mistake("eps is ignored", lambda each: _with(each, eps=0.0))
        yield Mistake("eps reaches hidden keys, too (the published form's leak)", published=True)


def _of_heads(inputs: Inputs) -> Iterator[Mistake]:
    kv_heads, group = inputs.problem.kv_heads, inputs.problem.group_size
    if group > 1 and kv_heads > 1:
        yield Mistake(
            "GQA heads are mixed: interleaved (head % kv_heads) rather than grouped",
            kv_head=lambda head: head % kv_heads,
        )
        yield Mistake("GQA heads are mixed: all read the first key head", kv_head=lambda head: 0)
        yield Mistake(
            "GQA heads are mixed: grouped by the number of key heads rather than by the group's size",
            kv_head=lambda head: min(head // kv_heads, kv_heads - 1),
        )
    elif kv_heads > 1:
        yield Mistake("all heads read the first head's keys and values", kv_head=lambda head: 0)


def _of_numbers(inputs: Inputs) -> Iterator[Mistake]:
    scale = inputs.scale
    yield Mistake("the base is 2: exp2 of what is meant for exp", _rescaled(scale * _LN2, _LN2))
    yield Mistake(
        "the base is 2 for the bias: exp2 of scores · log2(e) + λ b, which lacks its own log2(e)",
        _rescaled(scale, _LN2),
    )
    yield Mistake("the base is 2 for the scores: exp2 of them without log2(e)", _rescaled(scale * _LN2, 1.0))
    yield Mistake("the base is e for logits that were multiplied by log2(e)", _rescaled(scale / _LN2, 1 / _LN2))
    yield Mistake("the base is e for scores that were multiplied by log2(e)", _rescaled(scale / _LN2, 1.0))
    yield Mistake("the scale is missing", _rescaled(1.0, 1.0))
    yield Mistake("the scale is applied twice", _rescaled(scale * scale, 1.0))
    yield Mistake("λ b is scaled as the scores are", _rescaled(scale, scale))
    yield Mistake("λ b is scaled as the scores are, the other way round", _rescaled(scale, 1 / scale))
    yield Mistake("the scale is missing, or divides by D ** -0.5", _rescaled(1 / scale, 1.0))
    yield Mistake("scale and λ b are missing", _rescaled(1.0, 0.0))
    if inputs.problem.value_dim != inputs.problem.head_dim:
        yield Mistake("the scale is that of the values' width", _rescaled(inputs.problem.value_dim**-0.5, 1.0))


def _of_tails(inputs: Inputs) -> Iterator[Mistake]:
    """Keys past the last whole tile: left out, or counted where there are none."""
    whole = inputs.problem.key_length
    most = whole if inputs.key_lengths is None else int(inputs.key_lengths.max())
    seen: set[int] = set()
    for tile in _TILES:
        if (end := most // tile * tile) in seen or end in (0, most):
            continue
        seen.add(end)
        yield Mistake(
            f"the tail keys are left out: those past the last whole tile of {tile} ({end} to {most - 1})",
            _of_length(_whole_tiles(tile)),
        )
    if most > 1:
        yield Mistake("the last key is left out", _of_length(lambda n, most: n - 1 if n == most else n))
        yield Mistake("the first key is left out", _without_first_key)
    if not inputs.problem.masks_causally and inputs.key_lengths is None:
        seen = {whole}
        for tile in _TILES:
            if (end := -(-whole // tile) * tile) not in seen:
                seen.add(end)
                yield Mistake(
                    f"the last tile of {tile} keys counts keys past the end as zeros",
                    _padded_by(end - whole),
                )


def _of_layouts(inputs: Inputs) -> Iterator[Mistake]:
    problem = inputs.problem
    if problem.head_dim == problem.value_dim:
        yield Mistake("keys and values are swapped", lambda each: each.with_operands(each.query, each.value, each.key))
        yield Mistake("keys stand in for the values", lambda each: each.with_operands(each.query, each.key, each.key))
    if problem.kv_heads > 1 and problem.key_length > 1:
        yield Mistake(
            "key and value are read as [batch, length, heads, dim]",
            lambda each: each.with_operands(each.query, _heads_last(each.key), _heads_last(each.value)),
        )
        yield Mistake(
            "key is read as [batch, length, heads, dim]",
            lambda each: each.with_operands(each.query, _heads_last(each.key), each.value),
        )
        yield Mistake(
            "value is read as [batch, length, heads, dim]",
            lambda each: each.with_operands(each.query, each.key, _heads_last(each.value)),
        )
    if problem.query_heads > 1 and problem.query_length > 1:
        yield Mistake(
            "query is read as [batch, length, heads, dim]",
            lambda each: each.with_operands(_heads_last(each.query), each.key, each.value),
        )
    if problem.key_length > 1:
        yield Mistake(
            "key is transposed: read as [batch, heads, dim, length]",
            lambda each: each.with_operands(each.query, _transposed(each.key), each.value),
        )
        yield Mistake(
            "value is transposed: read as [batch, heads, dim, length]",
            lambda each: each.with_operands(each.query, each.key, _transposed(each.value)),
        )


def _steered(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda inputs: replace(inputs, strength=change(inputs.strength))


def _biased(change: Callable[[Tensor], Tensor]) -> Change:
    return lambda inputs: replace(inputs, bias=change(inputs.bias))


def _rescaled(scale: float, share: float) -> Change:
    """Scores by ``scale``, and λ b by ``share``."""
    return lambda inputs: replace(inputs, scale=scale, strength=inputs.strength.double() * share)


def _of_length(change: Callable[[int, int], int]) -> Change:
    """Other key lengths: ``change`` gives each from its own and the most that there can be."""

    def changed(inputs: Inputs) -> Inputs:
        most = inputs.problem.key_length
        own = [most] * inputs.problem.batch if inputs.key_lengths is None else inputs.key_lengths.tolist()
        lengths = [change(length, most) for length in own]
        return replace(inputs, key_lengths=torch.tensor(lengths, dtype=torch.int32, device=inputs.key.device))

    return changed


def _first_length(inputs: Inputs) -> Inputs:
    assert inputs.key_lengths is not None
    return replace(inputs, key_lengths=inputs.key_lengths[:1].expand(len(inputs.key_lengths)))


def _shifted(by: int) -> Change:
    """Each query sees ``by`` keys more (fewer where negative) than a causal mask lets it.

    The oracle aligns bottom-right: a key that is added, and hidden by its length, moves the mask one way, and a query
    that is added the other.
    """

    def shifted(inputs: Inputs) -> Inputs:
        if by < 0:
            more = torch.zeros_like(inputs.query[:, :, :1]).expand(-1, -1, -by, -1)
            query = torch.cat([inputs.query, more], dim=2)
            strength = inputs.strength
            if strength.shape[2] > 1:
                strength = torch.cat([strength, strength[:, :, -1:].expand(-1, -1, -by)], dim=2)
            return replace(inputs, query=query, strength=strength)
        own = inputs.key_lengths
        if own is None:
            own = torch.full((inputs.problem.batch,), inputs.problem.key_length, device=inputs.key.device)
        return replace(_padded_by(by)(inputs), key_lengths=own)

    return shifted


def _padded_by(more: int) -> Change:
    """``more`` keys of zeros behind the others."""

    def padded(inputs: Inputs) -> Inputs:
        key, value = (pad(each, (0, 0, 0, more)) for each in (inputs.key, inputs.value))
        return replace(inputs, key=key, value=value, bias=pad(inputs.bias, (0, more)))

    return padded


def _whole_tiles(tile: int) -> Callable[[int, int], int]:
    """What whole tiles hold of a length; a length below one tile stays."""
    return lambda length, most: length // tile * tile or length


def _without_first_key(inputs: Inputs) -> Inputs:
    lengths = None if inputs.key_lengths is None else (inputs.key_lengths - 1).clamp_min(0)
    return replace(
        inputs, key=inputs.key[:, :, 1:], value=inputs.value[:, :, 1:], bias=inputs.bias[..., 1:], key_lengths=lengths
    )


def _moved(by: int) -> Callable[[Tensor], Tensor]:
    """Each key's bias taken from the one ``by`` places before it; past the end the nearest."""

    def moved(bias: Tensor) -> Tensor:
        places = (torch.arange(bias.shape[-1], device=bias.device) - by).clamp(0, bias.shape[-1] - 1)
        return bias[..., places]

    return moved


def _heads_last(tensor: Tensor) -> Tensor:
    """Memory of [B, H, L, D] as whoever takes it for [B, L, H, D] reads it."""
    batch, heads, length, width = tensor.shape
    return tensor.contiguous().reshape(batch, length, heads, width).transpose(1, 2)


def _transposed(tensor: Tensor) -> Tensor:
    """Memory of [B, H, L, D] as whoever takes it for [B, H, D, L] reads it."""
    batch, heads, length, width = tensor.shape
    return tensor.contiguous().reshape(batch, heads, width, length).transpose(2, 3)


def _with(inputs: Inputs, **changes: object) -> Inputs:
    return replace(inputs, problem=replace(inputs.problem, **changes))  # type: ignore[arg-type]
