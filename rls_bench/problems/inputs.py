"""The tensors of one call, in the one layout that every backend receives."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rls_bench.problems.problem import Problem


@dataclass(frozen=True)
class Inputs:
    """Checked tensors of one call.

    query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv] share dtype and device. ``bias`` is float32
    [B or 1, Hq or 1, Lk] and ``strength`` float32 [B or 1, Hq or 1, Lq or 1] (axes of 1 broadcast); ``key_lengths``
    is int32 [B] or None. ``problem`` describes the same call without tensors.
    """

    problem: Problem
    query: Tensor = field(repr=False)
    key: Tensor = field(repr=False)
    value: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    strength: Tensor = field(repr=False)
    scale: float
    key_lengths: Tensor | None = field(default=None, repr=False)

    def with_operands(self, query: Tensor, key: Tensor, value: Tensor) -> Inputs:
        """The same call of other operands, which must be shaped as these."""
        # Not dataclasses.replace, which takes several times as long: a model's every layer comes through here.
        return Inputs(self.problem, query, key, value, self.bias, self.strength, self.scale, self.key_lengths)

    def logit_bias(self) -> Tensor:
        """``λ b``, float32 [B or 1, Hq or 1, Lq or 1, Lk]: what is added to the scaled scores."""
        return self.strength[..., None] * self.bias[:, :, None, :]

    def visible(self) -> Tensor | None:
        """Which keys each query may see, bool [B or 1, 1, Lq or 1, Lk], or None where all may.

        Causal is bottom-right aligned: query i sees key j where ``j <= i + Lk - Lq``.
        """
        return visible_keys(self.problem, self.key_lengths, self.query.device)

    def without_padding(self) -> tuple[Tensor, Tensor]:
        """Key and value with zeros past ``key_lengths``, for kernels that would multiply a NaN there by a weight of 0.

        The tensors themselves where there are no lengths; else copies, which take a pass over both.
        """
        if self.key_lengths is None:
            return self.key, self.value
        padding = torch.arange(self.problem.key_length, device=self.key.device) >= self.key_lengths[:, None]
        padding = padding[:, None, :, None]
        return self.key.masked_fill(padding, 0.0), self.value.masked_fill(padding, 0.0)

    def may_hide_whole_rows(self) -> bool:
        """Whether some query may have no visible key at all, judged without reading a tensor's values."""
        return self.problem.may_hide_whole_rows

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by argument name, those that are absent left out."""
        named = {name: getattr(self, name) for name in ("query", "key", "value", "bias", "strength", "key_lengths")}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def visible_keys(problem: Problem, key_lengths: Tensor | None, device: torch.device) -> Tensor | None:
    """``Inputs.visible`` of such lengths, int32 [B]."""
    if not problem.masks_causally and key_lengths is None:
        return None
    keys = torch.arange(problem.key_length, device=device)
    mask: Tensor | None = None
    if problem.masks_causally:
        last = torch.arange(problem.query_length, device=device) + (problem.key_length - problem.query_length)
        mask = (keys[None, :] <= last[:, None])[None, None]
    if key_lengths is not None:
        padding = (keys[None, :] < key_lengths[:, None])[:, None, None, :]
        mask = padding if mask is None else mask & padding
    return mask
