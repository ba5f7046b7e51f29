"""The compiled library behind its C ABI: structs that mirror csrc/call.h, and one Python function an entry point."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from collections.abc import Iterable
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_kernels.cpu import build

DTYPES = {getattr(torch, name): number for number, name in enumerate(build.DTYPES)}
PREFILL, DECODE, BACKWARD = range(len(build.OPERATIONS))
NO_ROWS, NORMALISERS, ALL_ROWS, STEERED_ROWS, COARSE_ROWS = range(5)
LSE, LSE_STEERED, ENTROPY, ENTROPY_STEERED, MEAN_BIAS, LOG_NORMALISER, DIVERGENCE, ROWS = range(8)
# Options of forward_like.
CHECK_VALUES, WIDE_LENGTHS = 1, 2

_NOT_INSTALLED = 4

# Up to this many query rows a key-value head, the keys are streamed unpacked and split over threads.
DECODE_ROWS = 16


class _TensorView(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("batch_stride", c_int64),
        ("head_stride", c_int64),
        ("length_stride", c_int64),
    )


class Call(ctypes.Structure):
    """``rls_call`` of csrc/call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "query_heads", "kv_heads", "query_length", "key_length")),
        *((name, c_int64) for name in ("head_dim", "value_dim")),
        *((name, c_int32) for name in ("dtype", "out_dtype", "is_causal", "want_rows", "threads", "is_decode")),
        ("scale", c_float),
        ("eps", c_float),
        *((name, _TensorView) for name in ("query", "key", "value", "out")),
        ("bias", c_void_p),
        ("bias_batch_stride", c_int64),
        ("bias_head_stride", c_int64),
        ("strength", c_void_p),
        ("strength_batch_stride", c_int64),
        ("strength_head_stride", c_int64),
        ("strength_query_stride", c_int64),
        ("key_lengths", c_void_p),
        ("rows", c_void_p),
    )


class Gradient(ctypes.Structure):
    """``rls_gradient`` of csrc/call.h."""

    _fields_ = (
        ("call", Call),
        *((name, _TensorView) for name in ("grad_out", "grad_query", "grad_key", "grad_value")),
        *((name, c_void_p) for name in ("grad_bias", "grad_strength")),
    )


class Library:
    """The loaded library; ``compile_seconds`` is what building or finding it, and its parts so far, took."""

    def __init__(self, variant: str = "") -> None:
        self._variant = variant
        began = time.perf_counter()
        self._c = _loaded(build.build(variant))
        self.compile_seconds = time.perf_counter() - began
        self._parts: dict[tuple[str, str, str], ctypes.CDLL] = {}
        self._c.rls_isa_name.restype = self._c.rls_holder.restype = c_char_p
        self._c.rls_holder.argtypes = [c_char_p, c_int32, c_int32]
        self._c.rls_install.argtypes = [c_char_p, c_int32, c_int32, c_void_p]
        for name in ("rls_call_size", "rls_gradient_size"):
            getattr(self._c, name).restype = c_int64
        sizes = (self._c.rls_call_size(), self._c.rls_gradient_size())
        if sizes != (ctypes.sizeof(Call), ctypes.sizeof(Gradient)):
            raise build.BuildError(f"csrc/call.h and library.py disagree: the structs take {sizes} bytes in C++")
        self._c.rls_forward.argtypes = [c_char_p, POINTER(Call)]
        self._c.rls_backward.argtypes = [c_char_p, POINTER(Gradient)]
        # Called without a wrapper: its users count microseconds.
        self.forward_like = self._c.rls_forward_like
        settings, operands = (c_char_p, POINTER(Call), c_int32, c_int32), (*(c_void_p,) * 6, c_float, c_void_p)
        self.forward_like.argtypes = [*settings, *operands]
        self._isas: list[str] = []
        while name := self._c.rls_isa_name(len(self._isas)):
            self._isas.append(name.decode())

    def isas(self) -> list[str]:
        """Instruction sets that this CPU runs, best first."""
        return self._isas

    def isa(self) -> str:
        """The instruction set in use: the best, or the one that RLS_CPU_ISA names. Raises BuildError for another."""
        isas = self.isas()
        wanted = os.environ.get("RLS_CPU_ISA") or isas[0]
        if wanted not in isas:
            raise build.BuildError(f"RLS_CPU_ISA: wanted one of {', '.join(isas)} on this CPU; got {wanted!r}")
        return wanted

    def install(self, operation: int, dtype: int) -> None:
        """Have the kernel ready that the instruction set in use takes for one of PREFILL, DECODE and BACKWARD in one of
        DTYPES: compiled, or found in the user's cache. Raises BuildError.
        """
        part = self.part_for(self.isa(), operation, dtype)
        if part in self._parts:
            return
        began = time.perf_counter()
        loaded = _loaded(build.build_part(*part, self._variant))
        kernel = ctypes.cast(loaded.rls_kernel, c_void_p)
        raise_for(self._c.rls_install(part[0].encode(), operation, dtype, kernel))
        self._parts[part] = loaded
        self.compile_seconds += time.perf_counter() - began

    def part_for(self, isa: str, operation: int, dtype: int) -> tuple[str, str, str]:
        """Whose kernel ``isa``, which runs here, takes, for which operation in which dtype: what ``build`` names it."""
        holder = self._c.rls_holder(isa.encode(), operation, dtype).decode()
        return holder, build.OPERATIONS[operation], build.DTYPES[dtype]

    def forward(self, call: Call) -> None:
        """Run the forward kernel, on torch's number of threads. Raises MemoryError."""
        isa, given = self.isa().encode(), ctypes.byref(call)
        status = self._c.rls_forward(isa, given)
        if status == _NOT_INSTALLED:
            self.install(DECODE if call.is_decode else PREFILL, call.dtype)
            status = self._c.rls_forward(isa, given)
        raise_for(status)

    def backward(self, gradient: Gradient) -> None:
        """Run the backward kernel likewise."""
        isa, given = self.isa().encode(), ctypes.byref(gradient)
        status = self._c.rls_backward(isa, given)
        if status == _NOT_INSTALLED:
            self.install(BACKWARD, gradient.call.dtype)
            status = self._c.rls_backward(isa, given)
        raise_for(status)


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    # A file system mounted noexec, or a compiler for another machine.
    except OSError as error:
        raise build.BuildError(f"{path} cannot be loaded: {error}") from error


def raise_for(status: int) -> None:
    """Raise what a kernel's status means: MemoryError, or ValueError for values that it was asked to check."""
    if status == 1:
        raise MemoryError("rls_kernels.cpu: no memory for the packed keys and values")
    if status == 3:
        raise ValueError("bias, strength, key_lengths: wanted finite numbers, and lengths from 0 to that of the keys")
    if status:
        raise RuntimeError(f"rls_kernels.cpu: the kernel returned status {status}")


def to_build(operations: Iterable[int], dtype: int) -> dict[str, float]:
    """What ``install`` would still have to compile, by name, and in about how many seconds. Compiles nothing."""
    variant = os.environ.get("RLS_CPU_BUILD", "")
    if build.unavailable_reason() or variant not in build.VARIANTS:
        return {}
    try:
        if not build.is_built(variant=variant):
            # Which instruction set will do it is known to the base alone.
            parts = {f"{build.OPERATIONS[each]} {build.DTYPES[dtype]}": build.PART_SECONDS for each in operations}
            return {"base": build.BASE_SECONDS, **parts}
        found = library()
        wanted = [found.part_for(found.isa(), operation, dtype) for operation in operations]
        return {" ".join(part): build.PART_SECONDS for part in wanted if not build.is_built(part, variant)}
    # Preparing will tell.
    except build.BuildError:
        return {}


def build_for_this_cpu(variant: str = "") -> None:
    """Compile the parts of every instruction set that this CPU runs, so that tests of them need no compiler.

    The sets are asked of the plain build: one with checks can be loaded only where they are loaded first.
    """
    plain = Library()
    every = itertools.product(plain.isas(), range(len(build.OPERATIONS)), DTYPES.values())
    build.build_all({plain.part_for(*each) for each in every}, variant)


@cache
def library() -> Library:
    """The library of this process, its base built and loaded on the first call. RLS_CPU_BUILD names another variant."""
    return Library(os.environ.get("RLS_CPU_BUILD", ""))


def view(tensor: Tensor) -> Any:
    """A 4-d tensor whose last axis is dense."""
    return _TensorView(tensor.data_ptr(), *tensor.stride()[:3])
