"""The metadata by which two calls are alike: what a checked, prepared call holds for, and what it doesn't."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._dynamo.guards import TensorGuards
from torch.nn import Parameter


class _Metadata(NamedTuple):
    """Of one tensor; the names are those that an error uses."""

    type: type
    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    # Only where gradients are recorded.
    requires_grad: bool


class _Surroundings(NamedTuple):
    """Of the thread, where the tensors are."""

    kind: str
    inference_mode: bool
    autocast: torch.dtype | None


def is_plain(*tensors: Tensor) -> bool:
    """Whether the kernel may read these where they lie: strided memory, and nothing left to be done to its values."""
    return all(
        type(tensor) in (Tensor, Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
        for tensor in tensors
    )


class Likeness:
    """Holds for tensors with the metadata of those given, of a thread in the same state; keeps no tensor."""

    def __init__(self, **tensors: Tensor) -> None:
        self._names = tuple(tensors)
        self._metadata = _describe(tuple(tensors.values()))
        # torch.compile's own guard: it compares all that the dispatcher would look at, in under a microsecond.
        self._guard = TensorGuards(*tensors.values(), dynamic_dims_sizes=None, dynamic_dims_strides=None).check
        # It looks at a tensor's wish for gradients, not at whether they are recorded.
        self._may_track = any(tensor.requires_grad for tensor in tensors.values())
        self._records = torch.is_grad_enabled()

    def holds(self, *tensors: Tensor) -> bool:
        """Whether these, in the order of those given, are alike."""
        if self._guard(*tensors) and not (self._may_track and torch.is_grad_enabled() != self._records):
            return True
        # The guard refuses a tensor that is given twice, as key and value may be.
        return is_plain(*tensors) and _describe(tensors) == self._metadata

    def difference(self, **tensors: Tensor) -> str:
        """What differs first in tensors given by name, in one line."""
        return self._differs_in(_Metadata._fields, tensors) or "planned for plain strided tensors; got another kind"

    def difference_in_sizes(self, **tensors: Tensor) -> str:
        """The same of what a transformed or fake tensor has in common with the plain one; empty where nothing does."""
        return self._differs_in(("shape", "dtype", "device"), tensors)

    def _differs_in(self, fields: tuple[str, ...], tensors: dict[str, Tensor]) -> str:
        *metadata, surroundings = self._metadata
        for name, wanted in zip(self._names, metadata, strict=True):
            found = tensors[name]
            if not isinstance(found, Tensor):
                return f"{name}: planned as a Tensor; got {type(found).__name__}"
            for field in fields:
                value = getattr(_of(found), field)
                if value != getattr(wanted, field):
                    return f"{name}: planned with {field} {_show(getattr(wanted, field))}; got {_show(value)}"
        for field in surroundings._fields if fields == _Metadata._fields else ():
            value = getattr(_surroundings(surroundings.kind), field)
            if value != getattr(surroundings, field):
                return f"planned with {field} {_show(getattr(surroundings, field))}; got {_show(value)}"
        return ""


def _describe(tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    return (*map(_of, tensors), _surroundings(tensors[0].device.type))


def _of(tensor: Tensor) -> _Metadata:
    tracked = torch.is_grad_enabled() and tensor.requires_grad
    return _Metadata(type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tracked)


def _surroundings(kind: str) -> _Surroundings:
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    autocast = torch.get_autocast_dtype(kind) if is_on else None
    return _Surroundings(kind, torch.is_inference_mode_enabled(), autocast)


def _show(value: object) -> str:
    if isinstance(value, torch.Size):
        return str(list(value))
    return value.__name__ if isinstance(value, type) else str(value)
