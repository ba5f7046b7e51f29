"""How far a call lies under what this machine can do, with both ceilings measured in the same session.

The roofline model of Williams, Waterman and Patterson (CACM 52(4), 2009): a call that does F operations on B bytes
takes no less than max(F / peak operations, B / bandwidth). B counts query, key, value and output once, the least that
any kernel must move, so that a kernel which moves more shows as a lower percentage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

from rls_bench.backends.interface import YES, Call, Support
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem
from rls_bench.timing.ahead import Ahead

# Well past any last-level cache here: 96 MiB on the largest desktop chips, 128 MiB on the largest GPUs.
_COPY_BYTES = 512 << 20
# Products grow from the first size until one lasts long enough to fill the chip, or to the last size.
_PRODUCT_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_PRODUCT_NS = 50e6
_CEILING_REPEATS = 5
_CALL_REPEATS = 7


class RooflineProbe:
    """The call's time against the time that the measured ceilings allow."""

    name = "roofline"
    summary = "percent of the peak that a copy and a matrix product reach here"

    def available(self) -> Support:
        return YES

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """Both ceilings are best times; the call's is a best time too, so that like is held against like."""
        copy_gb_per_s = copy_bandwidth(problem.device)
        product_tflop_per_s = matrix_product(problem.device, problem.dtype)
        call_ns = _best_ns(call, problem.device, _CALL_REPEATS)
        moved_bytes = problem.input_bytes + problem.output_bytes
        # FLOP / (TFLOP/s) and bytes / (GB/s), both to nanoseconds.
        compute_ns = problem.flops / product_tflop_per_s / 1e3
        memory_ns = moved_bytes / copy_gb_per_s
        return {
            "peak_percent": 100 * max(compute_ns, memory_ns) / call_ns,
            "bound_by": "compute" if compute_ns >= memory_ns else "memory",
            "call_ns": call_ns,
            "achieved_tflop_per_s": problem.flops / call_ns / 1e3,
            "achieved_gb_per_s": moved_bytes / call_ns,
            "intensity_flop_per_byte": problem.flops / moved_bytes,
            "ceiling_tflop_per_s": product_tflop_per_s,
            "ceiling_gb_per_s": copy_gb_per_s,
        }


PROBE = RooflineProbe()


@cache
def copy_bandwidth(device: str) -> float:
    """GB/s of a copy far larger than the caches, its read and its write both counted; measured once a process."""
    import torch

    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * _COPY_BYTES / _best_ns(lambda: target.copy_(source), device, _CEILING_REPEATS)


@cache
def matrix_product(device: str, dtype: str) -> float:
    """TFLOP/s of a square matrix product in ``dtype``, or in float32 where that is faster; measured once a process.

    Some CPUs multiply float16 by a plain loop, thousands of times slower than a kernel that widens it first.
    """
    best = _product_tflop_per_s(device, dtype)
    return best if dtype == "float32" else max(best, matrix_product(device, "float32"))


def _product_tflop_per_s(device: str, dtype: str) -> float:
    import torch

    for size in _PRODUCT_SIZES:
        left = torch.rand(size, size, device=device).to(getattr(torch, dtype))
        right = torch.rand(size, size, device=device).to(getattr(torch, dtype))
        product = torch.empty_like(left)
        multiply = partial(torch.mm, left, right, out=product)
        if _best_ns(multiply, device, 1) >= _PRODUCT_NS:
            break
    return 2 * size**3 / _best_ns(multiply, device, _CEILING_REPEATS) / 1e3


def _best_ns(call: Callable[[], object], device: str, repeats: int) -> float:
    """Least time of ``repeats`` calls after a warm-up, in nanoseconds; on a GPU, of the device alone."""
    import torch

    call()
    if torch.device(device).type != "cuda":
        return float(min(_host_ns(call) for _ in range(repeats)))
    ahead = Ahead(torch.cuda)
    return float(min(ahead.time(call).elapsed_ns for _ in range(repeats)))


def _host_ns(call: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start
