"""What a call returned, looked at before anything is done with it, and handed over in memory that the referee reads."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends.interface import AttentionStats
from rls_bench.problems.problem import Problem
from rls_bench.referee import bare, sealed
from rls_bench.referee.judge import Result
from rls_bench.referee.operands import same_bytes
from rls_bench.timing import training

_STATISTICS = len(AttentionStats._fields)
_memmove = ctypes.memmove


def shapes(problem: Problem) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of the output and, where the problem asks for them, of each statistic and each gradient."""
    gradients = list(training.shapes(problem).values()) if problem.requires_grad else []
    return [*_forward_shapes(problem), *gradients]


def _forward_shapes(problem: Problem) -> list[tuple[tuple[int, ...], torch.dtype]]:
    rows = problem.batch, problem.query_heads, problem.query_length
    output = (*rows, problem.value_dim), getattr(torch, problem.dtype)
    return [output, *([(rows, torch.float32)] * _STATISTICS if problem.return_stats else [])]


def parts(result: Any, problem: Problem) -> list[Tensor]:
    """The tensors of a call's result; raises ValueError, with the reason, for what is no such result.

    Plain tensors and nothing else: a subclass, or an object that only behaves like a tuple, can put its work off
    until somebody looks.
    """
    result, gradients = result if problem.requires_grad else (result, ())
    wanted = "a Tensor and AttentionStats, in a tuple" if problem.return_stats else "a Tensor"
    found = [result]
    if problem.return_stats:
        if type(result) is not tuple or len(result) != 2 or type(result[1]) not in (AttentionStats, tuple):
            raise ValueError(f"a call returns {wanted}; got {_kind(result)}")
        found = [result[0], *result[1]]
        if len(found) != 1 + _STATISTICS:
            raise ValueError(f"stats: wanted {_STATISTICS} tensors; got {len(found) - 1}")
    names = ["output", *[f"stats.{name}" for name in AttentionStats._fields][: len(found) - 1]]
    if problem.requires_grad:
        names += [f"gradient of {name}" for name in training.operands(problem)]
    found = [*found, *gradients]
    for name, part, (shape, dtype) in zip(names, found, shapes(problem), strict=True):
        if part is None:
            raise ValueError(f"{name}: there is none")
        # By identity of the type: isinstance can be answered by the object itself.
        if type(part) is not Tensor:
            raise ValueError(f"{name}: wanted a torch.Tensor and no subclass; got {_kind(part)}")
        if fault := bare.fault(part, shape, dtype, problem.device):
            raise ValueError(f"{name}: {fault}")
    return found


def _kind(found: Any) -> str:
    kind = type(found)
    return f"{kind.__module__}.{kind.__qualname__}"


class Tray:
    """Memory in which results are handed over, each in a slot of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._memory: mmap.mmap | None = None
        self._problem: Problem | None = None

    def lay_out(self, problem: Problem, slots: int) -> None:
        """Make room for the results of ``problem``."""
        self.clear()
        self._problem = problem
        self._memory = sealed.writing(self._descriptor, slots * slot_bytes(problem))

    def put(self, slot: int, tensors: list[Tensor]) -> None:
        """Copy a result's ``parts`` into a slot."""
        assert self._problem is not None
        place = self._address + slot * slot_bytes(self._problem)
        for tensor in tensors:
            found = bare.Bytes(tensor)
            _memmove(place, found.address, found.size)
            place += found.size

    def holds(self, slot: int, tensors: list[Tensor]) -> bool:
        """Whether the tensors are still what was put into the slot."""
        assert self._problem is not None
        place = self._address + slot * slot_bytes(self._problem)
        for tensor in tensors:
            found = bare.Bytes(tensor)
            if not same_bytes(place, found.address, found.size):
                return False
            place += found.size
        return True

    def clear(self) -> None:
        """Let go of the memory."""
        if self._memory is not None:
            self._memory.close()
            os.ftruncate(self._descriptor, 0)
        self._memory = self._problem = None

    @property
    def _address(self) -> int:
        assert self._memory is not None
        # The exported buffer is let go of at once, or the memory could never be closed.
        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory))


def slot_bytes(problem: Problem) -> int:
    """Bytes of one result of ``problem``."""
    return _bytes(shapes(problem))


def forward_bytes(problem: Problem) -> int:
    """Those of them that are no gradient's, which come first."""
    return _bytes(_forward_shapes(problem))


def _bytes(found: list[tuple[tuple[int, ...], torch.dtype]]) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in found)


def taken(descriptor: int, problem: Problem, slot: int) -> Result:
    """A copy of the result in a slot; raises ValueError where the memory is too small for one."""
    # Not mapped: whoever else holds the memory could cut it short meanwhile, which kills its reader.
    place, found = slot * slot_bytes(problem), []
    for shape, dtype in shapes(problem):
        copy = bytearray(math.prod(shape) * dtype.itemsize)
        if os.preadv(descriptor, [copy], place) != len(copy):
            raise ValueError(f"wanted a result of {slot_bytes(problem)} bytes in slot {slot}; the memory has less")
        found.append(torch.frombuffer(copy, dtype=dtype).reshape(shape))
        place += len(copy)
    past = len(_forward_shapes(problem))
    stats = AttentionStats(*found[1:past]) if problem.return_stats else None
    gradients = dict(zip(training.operands(problem), found[past:], strict=True)) if problem.requires_grad else None
    return Result(found[0], stats, gradients)
