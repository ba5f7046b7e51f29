"""A model, not a measurement: the least time that a GPU's published rates allow one forward call.

Each limit assumes that everything else is hidden behind it: the matrix products at the tensor cores' full rate, the
exponentials at MUFU's, the FP32 instructions at the FMA lanes', all instructions at one a scheduler and clock, and
every input read and output written once. The floor is the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rls_bench.inspector.gpus import Gpu, gpus
from rls_bench.inspector.inspection import Inspection, Variant
from rls_bench.problems.problem import Problem

# Four schedulers, each one warp instruction a clock, on every architecture here.
_ISSUE = 4 * 32
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class Floor:
    """Model times of one call, nanoseconds by limit, and which of them rest on unsure figures."""

    limits_ns: dict[str, float]
    unsure: frozenset[str]

    @property
    def binding(self) -> str:
        """The limit that takes longest."""
        return max(self.limits_ns, key=lambda name: self.limits_ns[name])

    @property
    def floor_ns(self) -> float:
        """The least time of the call."""
        return self.limits_ns[self.binding]


def floor(problem: Problem, inspection: Inspection, gpu: Gpu) -> Floor:
    """Model floor of ``problem`` through the hot loop of ``inspection`` on ``gpu``.

    Raises ValueError where the inspection has no hot loop, or is of another architecture.
    """
    hot = inspection.hot
    if hot is None or inspection.arch != gpu.arch:
        raise ValueError(f"floor: wanted a hot loop for {gpu.arch}; got {inspection.key} {inspection.error}".rstrip())
    scores = tile_scores(problem, inspection.block_m, inspection.block_n)
    tensor_rate = gpu.tensor_bf16_mma_sync if inspection.tensor_path == "mma.sync" else gpu.tensor_bf16
    tensor_flops = hot.tensor_flops or 2 * (problem.head_dim + problem.value_dim)
    bias_bytes = 4 * problem.key_length * (problem.batch * problem.query_heads if problem.bias_layout == "bhk" else 1)
    if problem.bias_layout == "bk":
        bias_bytes *= problem.batch
    moved = problem.input_bytes + problem.output_bytes + bias_bytes
    # One thousand million clocks a second at 1 GHz: per nanosecond the giga cancels.
    clocks = {
        "tensor": tensor_flops / tensor_rate,
        "mufu": hot.mufu / gpu.mufu,
        "fp32": hot.fp32_lanes / gpu.fp32_fma,
        "issue": hot.instructions / _ISSUE,
    }
    limits = {name: scores * each / (gpu.sms * gpu.clock_ghz) for name, each in clocks.items()}
    limits["dram"] = moved / gpu.dram_gb_s
    rests_on = {"tensor": "tensor_bf16", "mufu": "mufu", "fp32": "fp32_fma"}
    unsure = {name for name in clocks if gpu.mark("sms", "clock_ghz", rests_on.get(name, ""))}
    if gpu.mark("dram_gb_s"):
        unsure.add("dram")
    return Floor(limits, frozenset(unsure))


def tile_scores(problem: Problem, block_m: int, block_n: int) -> int:
    """Scores that whole tiles compute: a causal kernel skips hidden tiles and computes diagonal ones in full."""
    blocks = np.arange(-(-problem.query_length // block_m))
    ends = np.full(len(blocks), problem.key_length)
    if problem.is_causal:
        last_rows = np.minimum((blocks + 1) * block_m, problem.query_length)
        ends = np.clip(last_rows + problem.key_length - problem.query_length, 0, problem.key_length)
    tiles = int(np.sum(-(-ends // block_n)))
    return problem.batch * problem.query_heads * tiles * block_m * block_n


def _example(head_dim: int) -> Problem:
    return Problem(
        batch=1,
        query_heads=32,
        kv_heads=8,
        query_length=8192,
        key_length=8192,
        head_dim=head_dim,
        value_dim=head_dim,
        dtype="bfloat16",
        is_causal=True,
    )


# What the printed model speaks of.
EXAMPLES = (_example(64), _example(128))


@dataclass(frozen=True)
class Prediction:
    """Model floors of one problem on one GPU, steered and not."""

    problem: Problem
    gpu: Gpu
    steered: Floor
    unsteered: Floor

    @property
    def tax_percent(self) -> float:
        """How much the floor rises with steering."""
        return 100 * (self.steered.floor_ns / self.unsteered.floor_ns - 1)

    @property
    def issue_tax_percent(self) -> float:
        """How much longer the call takes if instruction issue binds it, whatever the floor says."""
        return 100 * (self.steered.limits_ns["issue"] / self.unsteered.limits_ns["issue"] - 1)


def predictions(problem: Problem, inspections: Sequence[Inspection]) -> list[Prediction]:
    """One prediction for each GPU whose architecture has the prefill kernel inspected, steered and unsteered.

    Costs a score are those of tiles that every query sees: the kernel compiled without a causal mask.
    """
    kernels = {(one.arch, one.variant): one for one in inspections if one.hot}
    steered = Variant("prefill", problem.head_dim, _SHORT[problem.dtype])
    found = []
    for gpu in gpus().values():
        with_bias = kernels.get((gpu.arch, steered))
        without = kernels.get((gpu.arch, replace(steered, strength_layout="none")))
        if with_bias and without:
            found.append(Prediction(problem, gpu, floor(problem, with_bias, gpu), floor(problem, without, gpu)))
    return found
