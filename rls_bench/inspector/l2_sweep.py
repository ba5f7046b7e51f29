"""The L2 model over sequence lengths, for each GPU of an inspected architecture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rls_bench.errors import InspectionError
from rls_bench.inspector.gpus import Gpu, gpus
from rls_bench.inspector.inspection import Inspection, Variant
from rls_bench.inspector.l2 import Replay, Tiling, replay
from rls_bench.problems.problem import DTYPE_SHORT, Problem

# What `sweep` replays at each length, where nothing else is asked for.
PROBLEM = Problem(
    batch=1,
    query_heads=32,
    kv_heads=8,
    query_length=131072,
    key_length=131072,
    head_dim=128,
    value_dim=128,
    dtype="bfloat16",
    is_causal=True,
)
LENGTHS = tuple(1024 << power for power in range(8))


@dataclass(frozen=True)
class Swept:
    """One length on one GPU, replayed against the whole of its L2 and against half."""

    gpu: Gpu
    length: int
    whole: Replay
    half: Replay


def variant(problem: Problem) -> Variant:
    """The kernel whose tiles are replayed. Raises InspectionError where prefill is not what it is."""
    if problem.regime != "prefill":
        raise InspectionError(f"the replay is of the prefill kernel: wanted more than 16 queries; got {problem.title}")
    if problem.head_dim != problem.value_dim:
        raise InspectionError(f"the replay is of kernels with equal head dims; got {problem.title}")
    return Variant(
        "prefill",
        problem.head_dim,
        DTYPE_SHORT[problem.dtype],
        is_causal=problem.is_causal,
        eps=problem.eps > 0,
        stats=problem.return_stats,
        strength_layout=problem.strength_layout,
    )


def title(problem: Problem) -> str:
    """``problem`` without its lengths."""
    return " ".join(word for word in problem.title.split() if not re.fullmatch(r"L[qk]?\d+", word))


def sweep(inspections: Sequence[Inspection], asked: Problem | None = None) -> list[Swept]:
    """Replays of ``asked``, or else of ``PROBLEM`` at each of ``LENGTHS``, on every GPU whose kernel was inspected.

    Tiles and blocks an SM are those of the kernel that serves it, as inspected.
    """
    its_variant = variant(asked or PROBLEM)
    kernels = {one.arch: one for one in inspections if one.variant == its_variant and one.fits}
    usual = [replace(PROBLEM, query_length=length, key_length=length) for length in LENGTHS]
    problems = usual if asked is None else [asked]
    found = []
    for gpu in gpus().values():
        kernel = kernels.get(gpu.arch)
        if kernel is None:
            continue
        tiling = Tiling(kernel.block_m, kernel.block_n, gpu.sms * kernel.blocks_per_sm)
        for problem in problems:
            whole, half = (replay(problem, tiling, size) for size in (gpu.l2_bytes, gpu.l2_bytes // 2))
            found.append(Swept(gpu, problem.key_length, whole, half))
    return found
