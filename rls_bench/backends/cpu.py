"""Our C++ kernel for x86-64, which picks AVX2, AVX-512 or AVX-512-BF16 as it runs."""

from __future__ import annotations

import torch
from rls_kernels.cpu import attention, build, launch, library

from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, LayerCall, Result, Support, no
from rls_bench.errors import BackendUnavailable
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_WIDEST_HEAD = 256


class Cpu(Backend):
    """Once: the library is compiled, or found in the user's cache. In the call: everything, packing of keys too."""

    name = "cpu"
    summary = "our C++ kernel: packed keys, exact eps, statistics in the pass"
    kernels = ("rls_kernels::cpu_forward",)

    def available(self) -> Support:
        """Linux on an x86-64 with AVX2, and a C++ compiler."""
        reason = build.unavailable_reason()
        return no(reason) if reason else YES

    def supports(self, problem: Problem) -> Support:
        """CPU tensors; every mask, layout, eps, statistic and gradient; head dims up to 256."""
        if problem.device != "cpu":
            return no("runs on CPU tensors only")
        if max(problem.head_dim, problem.value_dim) > _WIDEST_HEAD:
            return no(f"head dims go up to {_WIDEST_HEAD}")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once. Raises BackendUnavailable where the build fails."""
        if not torch.compiler.is_compiling():
            _load()
        problem = inputs.problem

        def call() -> Result:
            result = attention.steered_attention(
                inputs.query,
                inputs.key,
                inputs.value,
                inputs.bias,
                inputs.strength,
                scale=inputs.scale,
                eps=problem.eps,
                is_causal=problem.is_causal,
                key_lengths=inputs.key_lengths,
                return_stats=problem.return_stats,
            )
            if problem.return_stats:
                return result[0], AttentionStats(*result[1])
            return result

        return call

    def prepare_layers(self, inputs: Inputs) -> LayerCall:
        """Fills in once for all layers what the kernel is told of bias, strength and lengths."""
        problem = inputs.problem
        if problem.eps or problem.return_stats or problem.requires_grad or torch.compiler.is_compiling():
            return super().prepare_layers(inputs)
        _load()
        tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength, inputs.key_lengths)
        return launch.Layers(launch.Operands(*tensors, inputs.scale, problem.is_causal))


def _load() -> None:
    try:
        library.library().isa()
    except build.BuildError as error:
        raise BackendUnavailable(f"backend 'cpu': {error}") from error


BACKEND = Cpu()
