"""The L2 model over sequence lengths, for each GPU of an inspected architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rls_bench.inspector.gpus import Gpu, gpus
from rls_bench.inspector.inspection import Inspection, Variant
from rls_bench.inspector.l2 import Replay, Tiling, replay
from rls_bench.problems.problem import Problem

# What `sweep` replays, at each length.
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
# The kernel whose tiles are replayed.
VARIANT = Variant("prefill", PROBLEM.head_dim, "bf16", is_causal=True)
TITLE = PROBLEM.title.replace(f"L{PROBLEM.key_length} ", "")
LENGTHS = tuple(1024 << power for power in range(8))


@dataclass(frozen=True)
class Swept:
    """One length on one GPU, replayed against the whole of its L2 and against half."""

    gpu: Gpu
    length: int
    whole: Replay
    half: Replay


def sweep(inspections: Sequence[Inspection]) -> list[Swept]:
    """Replays of ``PROBLEM`` at each of ``LENGTHS`` on every GPU whose architecture's prefill kernel was inspected.

    Tiles and blocks an SM are those of the steered kernel, as inspected.
    """
    kernels = {one.arch: one for one in inspections if one.variant == VARIANT and one.fits}
    found = []
    for gpu in gpus().values():
        kernel = kernels.get(gpu.arch)
        if kernel is None:
            continue
        tiling = Tiling(kernel.block_m, kernel.block_n, gpu.sms * kernel.blocks_per_sm)
        for length in LENGTHS:
            problem = replace(PROBLEM, query_length=length, key_length=length)
            whole, half = (replay(problem, tiling, size) for size in (gpu.l2_bytes, gpu.l2_bytes // 2))
            found.append(Swept(gpu, length, whole, half))
    return found
