"""A model, not a measurement: the L2 hits and DRAM bytes that a replay of our prefill kernel's tiles predicts here.

The replay (``rls_bench.inspector.l2``) takes the tiles and the occupancy of the kernel as it compiles for this GPU, and
the GPU's own number of multiprocessors and size of L2, as the driver tells them. Its figures stand beside those that
probe ``ncu`` measures. ``rls-bench inspect --l2`` does the same for GPUs that are not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rls_bench.backends.interface import YES, Call, Support, no
from rls_bench.errors import InspectionError, ProbeUnavailable
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem

if TYPE_CHECKING:
    from rls_kernels.triton.configurations import Configuration

_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


class ModelProbe:
    """Predictions for backend ``triton``, whose tiles are known, where it prefills."""

    name = "model"
    summary = "L2 hit rate and DRAM bytes that a replay of our Triton kernel predicts (a model)"

    def available(self) -> Support:
        import torch

        return (
            YES if torch.cuda.is_available() else no("models this machine's GPU; without one: rls-bench inspect --l2")
        )

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """Runs nothing; raises ProbeUnavailable for another backend, for decoding, and as ``predict`` does."""
        if backend != "triton":
            raise ProbeUnavailable("the tiles of backend triton alone are known")
        if problem.device != "cuda" or problem.regime == "decode":
            raise ProbeUnavailable("the model replays prefill on a GPU")
        import torch

        properties = torch.cuda.get_device_properties(problem.device)
        arch = f"sm_{properties.major}{properties.minor}"
        tuned = _tuned(problem)
        figures = predict(problem, arch, properties.multi_processor_count, properties.L2_cache_size, tuned)
        return {**figures, "tiles": "tuned here" if tuned else "the table's"}


PROBE = ModelProbe()


def _tuned(problem: Problem) -> Configuration | None:
    """What tuning has kept for ``problem`` on this GPU, which the launcher takes rather than the table's."""
    import torch
    from rls_kernels.triton import tuning

    options = (problem.is_causal, problem.eps > 0, problem.return_stats, problem.strength_layout == "bhq")
    shape = tuning.shape_class(
        getattr(torch, problem.dtype),
        (problem.head_dim, problem.value_dim),
        (problem.query_length, problem.key_length),
        problem.batch * problem.query_heads,
        options,
    )
    return tuning.kept(torch.cuda.get_device_name(problem.device), shape)


def predict(
    problem: Problem, arch: str, multiprocessors: int, l2_bytes: int, configuration: Configuration | None = None
) -> Measures:
    """What the replay predicts for our prefill kernel on a GPU of ``arch`` (``"sm_90"``), as configured or as shipped.

    ``l2_hit_rate_percent`` and ``dram_bytes`` assume that all of L2 serves this launch, the ``half_l2`` ones that half
    of it does. Raises ProbeUnavailable where the kernel can't be compiled for ``arch`` or fits no multiprocessor.
    """
    from rls_kernels.triton import variants

    from rls_bench.inspector import cases
    from rls_bench.inspector.compile import compile_for
    from rls_bench.inspector.disassemble import usage
    from rls_bench.inspector.l2 import Tiling, replay
    from rls_bench.inspector.occupancy import LIMITS, occupancy

    if arch not in LIMITS:
        raise ProbeUnavailable(f"models {', '.join(LIMITS)}; this GPU is {arch}")
    shipped = variants.prefill(
        int(arch.removeprefix("sm_")),
        max(problem.head_dim, problem.value_dim),
        _SHORT[problem.dtype],
        is_causal=problem.is_causal,
        eps=problem.eps > 0,
        stats=problem.return_stats,
        strength_layout=problem.strength_layout,
        configuration=configuration,
    )
    case = cases.case(shipped, arch)
    try:
        kernel = compile_for(case.source, arch)
        registers, _ = usage(kernel.cubin)
    except InspectionError as error:
        raise ProbeUnavailable(str(error)) from error
    held = occupancy(arch, registers, kernel.shared_bytes, kernel.num_warps, kernel.tensor_memory_columns)
    if not held.fits:
        raise ProbeUnavailable(f"no multiprocessor of {arch} holds a block of {case.variant.title}")
    tiling = Tiling(case.block_m, case.block_n, multiprocessors * held.blocks)
    whole, half = (replay(problem, tiling, size) for size in (l2_bytes, l2_bytes // 2))
    return {
        "l2_hit_rate_percent": 100 * whole.hit_rate,
        "l2_hit_rate_half_l2_percent": 100 * half.hit_rate,
        "dram_bytes": whole.dram_bytes,
        "dram_half_l2_bytes": half.dram_bytes,
        "l2_bytes": l2_bytes,
    }
