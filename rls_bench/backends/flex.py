"""FlexAttention, compiled, with λ and b as captured tensors."""

from __future__ import annotations

import os
import shutil
from functools import cache
from inspect import signature
from typing import Any

import torch
from rls_baselines.flex import steering_score_mod, visible_blocks
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.inputs import Inputs
from rls_bench.problem import Problem

_MOST_SHAPES = 1024


@cache
def _compiled() -> Any:
    # Each shape is a compilation of its own, and torch's limit of eight serves against accidents, not for this.
    known = signature(torch.compile).parameters
    limit: dict[str, Any] = {"recompile_limit": _MOST_SHAPES} if "recompile_limit" in known else {}
    return torch.compile(flex_attention, fullgraph=True, dynamic=False, **limit)


class Flex(Backend):
    """Once: the block mask, and the compilation of the first call of each shape. In the call: the kernel."""

    name = "flex"
    summary = "FlexAttention, compiled, λ and b as tensors"
    # It compiles itself; inside another trace the CPU lowering refuses captured tensors that the graph computes.
    traceable = False
    compiles = True
    # On a CPU the compiled graph is one call that the profiler cannot look into.
    kernels = ("flex_attention", "CompiledFxGraph")

    def available(self) -> Support:
        """CUDA, or a C++ compiler for the CPU."""
        compiler = os.environ.get("CXX", "g++")
        if torch.cuda.is_available() or shutil.which(compiler):
            return YES
        return no(f"needs a C++ compiler: {compiler} is not on PATH (Debian: apt-get install g++)")

    def supports(self, problem: Problem) -> Support:
        """One pass, equal head dims; on a CPU inference only."""
        if problem.eps:
            return no("the compiled kernel returns no unsteered weights: eps must be 0")
        if problem.return_stats:
            return no("the compiled kernel returns no row statistics")
        if problem.device == "cpu" and problem.requires_grad:
            return no("FlexAttention is inference only on a CPU")
        if problem.device == "cpu" and problem.head_dim != problem.value_dim:
            return no("query and value head dims must be equal on a CPU")
        if problem.device == "cuda" and min(problem.head_dim, problem.value_dim) < 16:
            return no("CUDA needs head dims of at least 16")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        problem = inputs.problem
        blocks = visible_blocks(
            problem.batch,
            problem.query_length,
            problem.key_length,
            is_causal=problem.masks_causally,
            key_lengths=inputs.key_lengths,
            device=problem.device,
        )
        compiled = _compiled()
        score_mod = steering_score_mod(inputs.bias, inputs.strength)

        def call() -> Tensor:
            return compiled(
                inputs.query,
                inputs.key,
                inputs.value,
                score_mod=score_mod,
                block_mask=blocks,
                scale=inputs.scale,
                enable_gqa=problem.group_size > 1,
            )

        # Before torch.compile took a limit of its own, the global one held.
        with torch._dynamo.config.patch(recompile_limit=_MOST_SHAPES, accumulated_recompile_limit=_MOST_SHAPES):
            call()
        return call


BACKEND = Flex()
