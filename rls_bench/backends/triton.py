"""Our fused Triton kernels; without CUDA they run in Triton's interpreter, which is right and never timed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from rls_bench.backends.derivatives import differentiable, refuse_tangents
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Support, no
from rls_bench.errors import BackendUnavailable
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_INTERPRETED = "runs in Triton's interpreter here: correct, never timed"
_WIDEST_HEAD = 256


class Triton(Backend):
    """Once: compilation. In the call: the kernel, which reads b and λ as the caller gave them.

    Block sizes are the table's, or what ``rls_kernels.triton.attention.tune`` has kept for such a call: it is never
    tuned unasked.
    """

    name = "triton"
    summary = "our fused Triton kernels: bias starts the score accumulator"
    kernels = ("prefill_kernel", "floored_kernel", "narrow_kernel", "decode_kernel")

    def available(self) -> Support:
        """Triton, and CUDA or else its interpreter, which a worker process is started with."""
        if find_spec("triton") is None:
            return no("needs Triton: pip install triton (Linux)")
        return YES if torch.cuda.is_available() else Support(True, _INTERPRETED)

    def supports(self, problem: Problem) -> Support:
        """Every mask, layout, eps, statistic and gradient; head dims up to 256."""
        if max(problem.head_dim, problem.value_dim) > _WIDEST_HEAD:
            return no(f"head dims go up to {_WIDEST_HEAD}")
        return YES

    def measurable(self) -> Support:
        """Only on a GPU."""
        return YES if torch.cuda.is_available() else no(_INTERPRETED)

    def environment(self) -> Mapping[str, str]:
        """Without CUDA the kernels are interpreted, which Triton decides when it is imported."""
        return {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once.

        Raises BackendUnavailable for CPU tensors in a process that doesn't interpret Triton.
        """
        import triton

        if inputs.query.device.type == "cpu" and not triton.knobs.runtime.interpret:
            raise BackendUnavailable(
                "backend 'triton': CPU tensors need Triton's interpreter, which this process was started without; "
                "set TRITON_INTERPRET=1 before Python starts, or give CUDA tensors"
            )
        from rls_kernels.triton import attention

        problem = inputs.problem
        refuse_tangents(self.name, inputs)
        tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength, inputs.key_lengths)
        options: dict[str, Any] = {
            "scale": inputs.scale,
            "eps": problem.eps,
            "is_causal": problem.is_causal,
            "return_stats": problem.return_stats,
        }

        def call() -> Any:
            output, stats = attention.steered_attention(*tensors, **options)
            return (output, differentiable(inputs, AttentionStats(*stats))) if problem.return_stats else output

        if inputs.query.device.type == "cuda" and not torch.compiler.is_compiling():
            call()
        return call


BACKEND = Triton()
