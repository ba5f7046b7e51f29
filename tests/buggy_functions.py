"""Plain functions with one of the usual mistakes planted in each, and right ones with another order of sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def visible(query: Tensor, key: Tensor, is_causal: bool, key_lengths: Tensor | None, shift: int) -> Tensor:
    """bool [B, 1, Lq, Lk]; ``shift`` moves the causal mask by so many keys."""
    rows, keys = torch.arange(query.shape[2])[:, None], torch.arange(key.shape[2])
    seen = torch.ones(query.shape[0], 1, query.shape[2], key.shape[2], dtype=torch.bool)
    if is_causal:
        seen &= keys <= rows + shift
    if key_lengths is not None:
        seen &= keys < key_lengths[:, None, None, None]
    return seen


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: float | Tensor,
    *,
    scale: float,
    is_causal: bool,
    key_lengths: Tensor | None,
    eps: float,
    shift: int | None = None,
    base: float | None = None,
    interleaved: bool = False,
) -> Tensor:
    """Steered attention as a kernel's author writes it first, and some ways to get it wrong."""
    group = query.shape[1] // key.shape[1]
    repeat = (lambda t: t.repeat(1, group, 1, 1)) if interleaved else (lambda t: t.repeat_interleave(group, 1))
    key, value = repeat(key), repeat(value)
    bias = bias if bias.ndim == 3 else bias.reshape(-1, 1, bias.shape[-1])
    knob = strength if isinstance(strength, float) else strength.reshape(*strength.shape, *[1] * (4 - strength.ndim))
    shift = key.shape[2] - query.shape[2] if shift is None else shift
    seen = visible(query, key, is_causal, key_lengths, shift)
    scores = (query @ key.transpose(2, 3)).float() * scale
    if eps:
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        scores = (weights + eps).log()
    logits = scores + knob * bias[:, :, None]
    if base is not None:
        logits = logits * base
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    return weights.to(query.dtype) @ value


def _planted(bug: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(query, key, value, bias, strength, *, scale, is_causal, key_lengths, eps):  # type: ignore[no-untyped-def]
        options = {"scale": scale, "is_causal": is_causal, "key_lengths": key_lengths, "eps": eps}
        return bug((query, key, value, bias, strength), options)

    return kernel


def _with(**changes: Any) -> Callable[..., Tensor]:
    """The kernel called with other options than those given."""
    return _planted(lambda tensors, options: attend(*tensors, **options | changes))


def _gap(tensors: tuple[Tensor, ...]) -> int:
    return tensors[1].shape[2] - tensors[0].shape[2]


def _shifted(by: int) -> Callable[..., Tensor]:
    return _planted(lambda tensors, options: attend(*tensors, **options, shift=_gap(tensors) + by))


def _knob(change: Callable[[Any], Any]) -> Callable[..., Tensor]:
    return _planted(lambda tensors, options: attend(*tensors[:4], change(tensors[4]), **options))


def _tail_rows_unwritten(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    result = attend(*tensors, **options)
    output = torch.empty_like(result)
    whole = result.shape[2] // 32 * 32
    output[:, :, :whole] = result[:, :, :whole]
    return output


def _tail_keys_left_out(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    query, key, value, bias, strength = tensors
    whole = key.shape[2] // 32 * 32
    return attend(query, key[:, :, :whole], value[:, :, :whole], bias[..., :whole], strength, **options)


def _swapped(tensors: tuple[Tensor, ...], options: dict[str, Any]) -> Tensor:
    query, key, value, bias, strength = tensors
    return attend(query, value, key, bias, strength, **options)


dropped_bias = _knob(lambda strength: 0.0)
ignored_strength = _knob(lambda strength: 1.0)
flipped_sign = _knob(lambda strength: -strength)
one_key_too_many = _shifted(1)
one_key_too_few = _shifted(-1)
top_left = _with(shift=0)
no_causal_mask = _with(is_causal=False)
interleaved_heads = _with(interleaved=True)
tail_rows_unwritten = _planted(_tail_rows_unwritten)
tail_keys_left_out = _planted(_tail_keys_left_out)
base_two = _with(base=0.6931471805599453)
missing_scale = _with(scale=1.0)
ignored_lengths = _with(key_lengths=None)
ignored_eps = _with(eps=0.0)
swapped_values = _planted(_swapped)


def other_order_of_sums(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: float, *, scale: float
) -> Tensor:
    """Right: the keys from last to first, and the softmax's sum and the product with the values taken in halves."""
    logits = (query @ key.flip(2).transpose(2, 3)).float() * scale + strength * bias.flip(-1)[:, None, None]
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    weights, value = weights.to(value.dtype), value.flip(2)
    half = key.shape[2] // 2
    total = weights[..., half:].float().sum(-1, keepdim=True) + weights[..., :half].float().sum(-1, keepdim=True)
    sums = (weights[..., :half] @ value[:, :, :half] + weights[..., half:] @ value[:, :, half:]).float()
    return (sums / total).to(query.dtype)
