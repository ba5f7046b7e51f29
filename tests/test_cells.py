"""Every cell of a suite through pytest-benchmark: ``pytest --benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def test_cell(benchmark: Any, steered_cell: Callable[[], Any]) -> None:
    result = benchmark(steered_cell)
    output = result[0] if isinstance(result, tuple) else result
    assert isinstance(output, torch.Tensor)
