"""Tries the loaded library once: a compiler, a file system or a CPU may be other than it says."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from rls_kernels.cpu import launch
from rls_kernels.cpu import library as lib
from rls_kernels.cpu.build import BuildError

_TOLERANCE = 1e-4


@cache
def failure() -> str:
    """Why the kernel doesn't work here, in one line; empty where it was built, loaded and gave the right answer.

    Asked once a process; the first one may take as long as the compiler does.
    """
    try:
        lib.library().isa()
    except BuildError as error:
        return str(error)
    # What the caller set for its own thread (modes of torch, a trace under way) is nothing to the trial.
    with ThreadPoolExecutor(1) as thread:
        errors = {query_length: thread.submit(_worst_error, query_length).result() for query_length in (1, 33)}
    for query_length, worst in errors.items():
        # Not-a-number is no small error.
        if not worst <= _TOLERANCE:
            return f"its self-test gave an error of {worst:.2g} with {query_length} queries; wanted {_TOLERANCE:g}"
    return ""


def _worst_error(query_length: int) -> float:
    """The greatest difference from the formula in float64, over 2 heads of 33 keys and 16 channels."""
    kind = {"dtype": torch.float32, "device": "cpu"}
    generator = torch.Generator("cpu").manual_seed(0)
    query, key, value = (
        torch.randn(1, 2, length, 16, generator=generator, **kind)  # type: ignore[call-overload]
        for length in (query_length, 33, 33)
    )
    bias = torch.rand(1, 1, 33, generator=generator, **kind)  # type: ignore[call-overload]
    strength = torch.full((1, 1, 1), 2.0, **kind)  # type: ignore[call-overload]
    operands = launch.Operands(query, key, value, bias, strength, None, 0.25, False)
    found, _ = launch.forward(operands, 0.0, lib.NO_ROWS)
    scores = 0.25 * query.double() @ key.double().mT + 2.0 * bias.double()
    wanted = torch.softmax(scores, -1) @ value.double()
    worst = float((found.double() - wanted).abs().amax())
    return worst if math.isfinite(worst) else math.nan
