"""Tricks, or honest mistakes, that make a call look faster than the work it stands for; each has its check.

What the agreement check sees once could be undone afterwards, so the last result of every sample is looked at, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.problems.inputs import Inputs
from rls_bench.records.record import Status

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


def late_or_aliased(inputs: Inputs, first: Any, call: Callable[[], Any]) -> tuple[Any, Finding | None]:
    """Call once more, after the result ``first``: the new result, and what is wrong with it.

    Work that goes on after the call has returned, in a thread or on another stream than the current one; an output in
    the memory of an input, or of the previous output, which it destroys.
    """
    result = call()
    second = output_of(result)
    # On CUDA the copy is queued on the current stream, behind whatever the call queued there and nothing else.
    at_once = second.clone()
    if inputs.query.is_cuda:
        torch.cuda.synchronize()
    else:
        time.sleep(_SETTLE_SECONDS)
    # What isn't a number is the agreement check's to name.
    if not bool(((at_once == second) | (at_once.isnan() & second.isnan())).all()):
        where = "on another stream" if inputs.query.is_cuda else "in another thread"
        return result, Finding("wrong", f"its output changed after the call had returned: the work goes on {where}")
    place = second.untyped_storage().data_ptr()
    for name, tensor in inputs.tensors().items():
        if tensor.untyped_storage().data_ptr() == place:
            return result, Finding("wrong", f"its output lies in the memory of its input {name}")
    if output_of(first).untyped_storage().data_ptr() == place:
        return result, Finding("wrong", "each output overwrites the one before: two results share memory")
    return result, None


@contextmanager
def overwritten(inputs: Inputs, other: Inputs) -> Iterator[None]:
    """Within it, the query and bias of ``inputs`` hold the values of ``other`` in the same memory.

    Keys and values may be packed once, so they stay.
    """
    pairs = [(inputs.query.detach(), other.query.detach()), (inputs.bias.detach(), other.bias.detach())]
    kept = [place.clone() for place, _ in pairs]
    try:
        for place, value in pairs:
            place.copy_(value)
        yield
    finally:
        for (place, _), value in zip(pairs, kept, strict=True):
            place.copy_(value)


def stale(found: Tensor, wanted: Tensor) -> Finding | None:
    """A result kept from an earlier call: ``found`` after new values came into the same memory, which ``wanted`` is of.

    ``wanted`` comes from the same backend, prepared on tensors in other memory; that one agreed with the oracle.
    """
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
