"""FlexAttention, compiled, with λ and b as captured tensors."""

from __future__ import annotations

import os
import shutil
from functools import cache, lru_cache
from inspect import signature
from typing import Any

import torch
from rls_baselines.flex import steering_score_mod, visible_blocks
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.backends.own_dtype import in_own_dtype
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_MOST_SHAPES = 1024
# Torch's CPU template for many queries adds up the values of all keys one after another. On real inputs the float32
# error of that grows with the root of their number: 0.8 of what the agreement check allows at 1024 keys and 1.1 at 2048
# (Zen 3, AVX2). AVX-512's floor is lower, and 1024 keys are past it. Decoding sums in parts, and is within it.
_MOST_FLOAT32_KEYS = {"AVX512": 512}
_MOST_FLOAT32_KEYS_ELSEWHERE = 1024


def _steered(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: Tensor,
    blocks: BlockMask | None,
    scale: float,
    enable_gqa: bool,
) -> Tensor:
    """What is compiled. The score_mod is made inside, so that another saliency is another argument and not another
    function, which would be compiled anew.
    """
    score_mod = steering_score_mod(bias, strength)
    result: Tensor = flex_attention(
        query, key, value, score_mod=score_mod, block_mask=blocks, scale=scale, enable_gqa=enable_gqa
    )
    return result


@cache
def _compiled() -> Any:
    # Each shape is a compilation of its own, and torch's limit of eight serves against accidents, not for this.
    known = signature(torch.compile).parameters
    limit: dict[str, Any] = {"recompile_limit": _MOST_SHAPES} if "recompile_limit" in known else {}
    return torch.compile(_steered, fullgraph=True, dynamic=False, **limit)


@lru_cache(maxsize=16)
def _causal_blocks(problem: tuple[int, int, int], device: str) -> BlockMask | None:
    """The block mask of a causal problem without padding: the same object each time, since another is compiled anew."""
    return visible_blocks(*problem, is_causal=True, key_lengths=None, device=device)


class Flex(Backend):
    """Once: the block mask, what padding holds zeroed, and the compilation of the first call of each shape. In the
    call: the kernel.
    """

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
        """One pass, equal head dims; on a CPU inference only, and float32 up to as many keys as it is right for."""
        if problem.eps:
            return no("the compiled kernel returns no unsteered weights: eps must be 0")
        if problem.return_stats:
            return no("the compiled kernel returns no row statistics")
        if problem.device == "cpu" and problem.requires_grad:
            return no("FlexAttention is inference only on a CPU")
        if problem.device == "cpu" and problem.head_dim != problem.value_dim:
            return no("query and value head dims must be equal on a CPU")
        if problem.device == "cpu" and problem.dtype == "float32" and problem.regime == "prefill":
            most = _MOST_FLOAT32_KEYS.get(torch.backends.cpu.get_cpu_capability(), _MOST_FLOAT32_KEYS_ELSEWHERE)
            if problem.key_length > most:
                return no(
                    f"float32 on this CPU sums keys one by one: past {most} keys the error can pass 2 × the floor"
                )
        if problem.device == "cpu" and _reads_past_the_keys(problem):
            return no(
                "torch (2.13 and before) reads and writes past the keys' end on this CPU where head_dim is 8 or 16 and "
                f"the last 16 keys aren't whole; got head_dim {problem.head_dim}, {problem.key_length} keys"
            )
        if problem.device == "cuda" and min(problem.head_dim, problem.value_dim) < 16:
            return no("CUDA needs head dims of at least 16")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        problem = inputs.problem
        sizes = problem.batch, problem.query_length, problem.key_length
        key, value = inputs.without_padding()
        if inputs.key_lengths is None:
            blocks = _causal_blocks(sizes, problem.device) if problem.masks_causally else None
        else:
            blocks = visible_blocks(
                *sizes, is_causal=problem.masks_causally, key_lengths=inputs.key_lengths, device=problem.device
            )
        compiled, has_groups = _compiled(), problem.group_size > 1

        def call() -> Tensor:
            with in_own_dtype(inputs.query):
                result: Tensor = compiled(
                    inputs.query,
                    key,
                    value,
                    inputs.bias,
                    inputs.strength,
                    blocks,
                    inputs.scale,
                    has_groups,
                )
            return result

        # Before torch.compile took a limit of its own, the global one held.
        with torch._dynamo.config.patch(recompile_limit=_MOST_SHAPES, accumulated_recompile_limit=_MOST_SHAPES):
            call()
        return call


def _reads_past_the_keys(problem: Problem) -> bool:
    """Whether torch's micro-kernel for the last few keys takes them for a whole block of 16.

    Its template (CppMicroGemmFP32Vec, with transposed keys) does where both D and those keys fill whole vectors and
    D < 24; with AVX-512 a block is one vector, and nothing is left over.
    """
    lanes = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
    left_over = problem.key_length % 16
    return problem.head_dim < 24 and problem.head_dim % lanes == 0 and left_over > 0 and left_over % lanes == 0


BACKEND = Flex()
