"""Tricks, or honest mistakes, that make a call look faster than the work it stands for; each has its check.

What the agreement check sees once could be undone afterwards, so the last result of every sample is looked at, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends.interface import Backend
from rls_bench.inputs import Inputs
from rls_bench.record import Status

# How far two results of the same call may lie apart, relative; stale or missing work is off by about 1.
_SAME = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
_FINGERPRINT_SIZE = 256
# A thread that was handed the work has written its result after this long, or the sample's own end shows it.
_SETTLE_SECONDS = 0.05


@dataclass(frozen=True)
class Finding:
    """What a check found: the status that the cell gets, and why."""

    status: Status
    reason: str


def output_of(result: Any) -> Tensor:
    """The output of a call's result, with or without statistics, outside the autograd graph."""
    return (result if isinstance(result, Tensor) else result[0]).detach()


def same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two outputs are the same work's, up to the order of its sums."""
    return torch.equal(found, wanted) or _close(found.double(), wanted.double(), found.dtype)


def fingerprint(output: Tensor) -> list[float]:
    """Evenly spaced elements of an output, few enough to keep."""
    flat = output.flatten()
    count = min(_FINGERPRINT_SIZE, flat.numel())
    places = torch.linspace(0, flat.numel() - 1, count, dtype=torch.float64).long()
    return [float(value) for value in flat[places.to(flat.device)]]


def matches(output: Tensor, wanted: list[float]) -> bool:
    """Whether ``output`` has the fingerprint ``wanted``, up to the order of its sums, and is finite throughout."""
    found = torch.tensor(fingerprint(output), dtype=torch.float64)
    expected = torch.tensor(wanted, dtype=torch.float64)
    return bool(output.isfinite().all()) and found.shape == expected.shape and _close(found, expected, output.dtype)


def _close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> bool:
    return bool((found - wanted).norm() <= _SAME[dtype] * wanted.norm())


def inspect(backend: Backend, inputs: Inputs, call: Callable[[], Any]) -> Finding | None:
    """Look at a prepared call outside timing; the first thing found wrong, or None."""
    return late_or_aliased(inputs, call) or stale(backend, inputs, call)


def late_or_aliased(inputs: Inputs, call: Callable[[], Any]) -> Finding | None:
    """Work that goes on after the call has returned, in a thread or on another stream than the current one; an output
    in the memory of an input, or of the previous output, which it destroys.
    """
    first = output_of(call())
    second = output_of(call())
    # On CUDA the copy is queued on the current stream, behind whatever the call queued there and nothing else.
    at_once = second.clone()
    if inputs.query.is_cuda:
        torch.cuda.synchronize()
    else:
        time.sleep(_SETTLE_SECONDS)
    if not torch.equal(at_once, second):
        where = "on another stream" if inputs.query.is_cuda else "in another thread"
        return Finding("wrong", f"its output changed after the call had returned: the work goes on {where}")
    place = second.untyped_storage().data_ptr()
    for name, tensor in inputs.tensors().items():
        if tensor.untyped_storage().data_ptr() == place:
            return Finding("wrong", f"its output lies in the memory of its input {name}")
    if first.untyped_storage().data_ptr() == place:
        return Finding("wrong", "each output overwrites the one before: two results share memory")
    return None


def stale(backend: Backend, inputs: Inputs, call: Callable[[], Any]) -> Finding | None:
    """A result kept from an earlier call: new queries and a new bias in the same memory must change it.

    Keys and values may be packed once, so they stay. The new answer comes from the same backend, prepared afresh on
    tensors in other memory; that one agreed with the oracle.
    """
    query, bias = inputs.query.detach(), inputs.bias.detach()
    kept = query.clone(), bias.clone()
    elsewhere = replace(inputs, query=query.flip(2).neg(), bias=bias.flip(-1))
    wanted = output_of(backend.prepare(elsewhere)())
    try:
        query.copy_(elsewhere.query)
        bias.copy_(elsewhere.bias)
        found = output_of(call()).clone()
    finally:
        query.copy_(kept[0])
        bias.copy_(kept[1])
    if same(found, wanted):
        return None
    return Finding("wrong", "its result doesn't follow new values in the same input tensors: it was kept from before")


def children() -> list[int]:
    """Process ids of this process's living children; empty where the system doesn't tell."""
    found: list[int] = []
    for listing in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        try:
            found += [int(word) for word in listing.read_text().split()]
        except OSError:
            continue
    return sorted(found)
