"""Lengths of sequences as production has them: drawn from the quantiles of a public serving trace."""

from __future__ import annotations

import sys
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def key_lengths(count: int, longest: int, generator: Generator) -> Tensor:
    """``count`` numbers of keys from 1 to ``longest``, int64 [count] on the CPU.

    Sequences of the trace that are longer than ``longest`` are not among them, for a cache of that size holds none.
    The inverse of the distribution function, linear between quantiles (``data/served_lengths.toml``).
    """
    table = _table()
    fitting = np.interp(longest, table["keys"], table["shares"])
    uniform = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu").numpy()
    keys = np.interp(uniform * fitting, table["shares"], table["keys"])
    return torch.from_numpy(keys.round()).long().clamp(1, longest)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("rls_bench") / "data" / "served_lengths.toml").read_text(encoding="utf-8"))
