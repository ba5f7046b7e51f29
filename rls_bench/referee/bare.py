"""A tensor as torch's own C code tells of it, and its bytes as they lie in memory.

A backend may put functions of its own in the place of a tensor's methods, or leave a mode on that every torch function
asks first; work that was put off would be done as soon as the harness looked. Here neither is asked, and on a CPU no
operator runs at all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Bound when this module loads, which a worker does before it imports any backend.
_of_tensors, _of_storage = vars(torch._C.TensorBase), vars(torch._C.StorageBase)
_shape, _dtype, _device, _layout = (_of_tensors[name].__get__ for name in ("shape", "dtype", "device", "layout"))
_stride, _is_contiguous, _is_negated = (_of_tensors[name] for name in ("stride", "is_contiguous", "is_neg"))
_address, _storage, _storage_address = _of_tensors["data_ptr"], _of_tensors["untyped_storage"], _of_storage["data_ptr"]
_detach, _cpu, _contiguous = (_of_tensors[name] for name in ("detach", "cpu", "contiguous"))
_no_function, _no_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch


@contextmanager
def _unasked() -> Iterator[None]:
    """Within it, torch asks no mode and no subclass."""
    with _no_function(), _no_dispatch():
        yield


def fault(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: str) -> str:
    """How a tensor differs from a dense one of this shape and dtype on ``device``, or an empty string."""
    with _unasked():
        layout, found_on = _layout(tensor), _device(tensor)
        if layout is not torch.strided or found_on.type != device.split(":")[0]:
            return f"wanted a dense tensor on {device}; got {layout} on {found_on}"
        if tuple(_shape(tensor)) != shape or _dtype(tensor) != dtype:
            return f"wanted {list(shape)} {dtype}; got {list(_shape(tensor))} {_dtype(tensor)}"
        return "wanted numbers as they lie in memory; got a view that negates them" if _is_negated(tensor) else ""


def storage_address(tensor: Tensor) -> int:
    """Where a tensor's storage begins."""
    with _unasked():
        return int(_storage_address(_storage(tensor)))


class Bytes:
    """The bytes of a tensor, element after element: ``size`` of them at ``address``, as long as this lives.

    A dense tensor's are its own memory, any other's a copy.
    """

    def __init__(self, tensor: Tensor) -> None:
        with _unasked():
            if _device(tensor).type != "cpu":
                tensor = _contiguous(_cpu(_detach(tensor)))
            shape, item = tuple(_shape(tensor)), _dtype(tensor).itemsize
            self.size = item * int(np.prod(shape))
            self.address = int(_address(tensor))
            self._kept: object = tensor
            if self.size and not _is_contiguous(tensor):
                strides = [item * step for step in _stride(tensor)]
                self._copy(shape, item, strides)

    def _copy(self, shape: tuple[int, ...], item: int, strides: list[int]) -> None:
        span = item + sum((count - 1) * step for count, step in zip(shape, strides, strict=True))
        memory: Any = (ctypes.c_char * span).from_address(self.address)
        copy = np.ascontiguousarray(np.ndarray(shape, f"u{item}", memory, strides=strides))
        self._kept, self.address = copy, copy.ctypes.data
