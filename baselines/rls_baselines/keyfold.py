"""Key folding: λ b as two more columns of the keys, so that a kernel with no bias input steers.

With ``q' = [q, c, c]`` and ``k' = [k, hi, lo]``, where ``hi + lo = λ b / (scale · c)``, ``scale · q'·k'`` is
``scale · q·k + λ b``. One bfloat16 column would lose accuracy as λ grows; the second holds what the first rounds away.
A λ that varies with the query is split in the same way, which takes a third column.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# hi·λhi, lo·λhi and hi·λlo where λ varies with the query; without it the third column holds zeros.
COLUMNS = 3


def column_weight(scale: float) -> float:
    """``c``: the power of two next to 1 / scale, exact in every dtype, which keeps the columns near λ b in size."""
    return 2.0 ** round(-math.log2(scale))


def fold_keys(padded_key: Tensor, per_key: Tensor) -> Tensor:
    """Write ``per_key`` (float32, broadcast to [B, H, Lk]) into the last columns of ``padded_key`` [B, H, Lk, D + 3].

    The columns become (hi, lo, hi) of ``per_key`` in padded_key's dtype. Returns padded_key, changed in place.
    """
    hi = per_key.to(padded_key.dtype)
    lo = (per_key - hi.float()).to(padded_key.dtype)
    padded_key[..., -COLUMNS:] = torch.stack((hi, lo, hi), dim=-1)
    return padded_key


def fold_queries(query: Tensor, per_query: Tensor) -> Tensor:
    """[q, whi, whi, wlo]: ``query`` [B, H, Lq, D] with its factor ``per_query`` (float32, broadcast to [B, H, Lq])."""
    hi = per_query.to(query.dtype)
    lo = (per_query - hi.float()).to(query.dtype)
    columns = torch.stack((hi, hi, lo), dim=-1).expand(*query.shape[:-1], COLUMNS)
    return torch.cat((query, columns), dim=-1)
