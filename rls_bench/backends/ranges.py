"""Numbers that some kernels cannot carry: refused where they can be read at no cost, saturated elsewhere.

Values of CPU tensors are there to be read. On a GPU that would stall the stream, and under torch.compile there are none
yet. What every backend promises stands in ``steered_attention``'s docstring.
"""

from __future__ import annotations

import torch

from rls_bench.errors import BackendUnsupported
from rls_bench.problems.inputs import Inputs


def can_be_read(inputs: Inputs) -> bool:
    """Whether the values of ``inputs`` may be looked at."""
    return inputs.query.device.type == "cpu" and not torch.compiler.is_compiling()


def refuse_beyond(backend: str, what: str, size: float, most: float) -> None:
    """Raise BackendUnsupported where ``size``, the greatest of ``what``, is beyond ``most``."""
    if size > most:
        raise BackendUnsupported(f"backend {backend!r}: {what} goes up to {most:.3g} in its kernel; got {size:.3g}")
