"""One kernel's launch, kept: the first call compiles, later ones hand new pointers to what was compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_HERE = nullcontext()


class Launch:
    """``kernel`` over ``grid`` with ``constants``: its compile-time constants, ``num_warps`` and ``num_stages``.

    Triton binds, specialises and hashes every argument of a launch anew (30 µs for a kernel of ours). What that yields
    follows from metadata alone but for the alignment of pointers, so `__call__` skips it from the second call on.
    """

    def __init__(self, kernel: Any, grid: tuple[int, ...], constants: dict[str, Any]) -> None:
        self._kernel = kernel
        self._grid = (*grid, 1, 1)[:3]
        self._constants = constants
        # Compiled kernels take the constants, too, in their places behind all others, and don't read them.
        self._places = tuple(constants[name] for name in getattr(kernel, "arg_names", ()) if name in constants)
        self._compiled: Callable[..., None] | None = None

    def __call__(self, are_aligned: bool, *arguments: Any) -> None:
        """Launch on the current device's current stream; ``arguments`` are all but the constants, in order.

        They must be of one metadata in every call. ``are_aligned`` says whether all tensors start at multiples of 16
        bytes; where they don't, Triton looks for itself.
        """
        if are_aligned and self._compiled is not None:
            self._compiled(*arguments, *self._places)
            return
        compiled = self._kernel[self._grid](*arguments, **self._constants)
        # The interpreter compiles nothing.
        if are_aligned and compiled is not None:
            self._compiled = compiled[self._grid]


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Makes ``device`` the current one: Triton launches there, whichever the tensors lie on."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)
