"""The published form, materialised: what a model's eager attention would do."""

from __future__ import annotations

from rls_baselines.eager import eager_attention, row_statistics

from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Result, Support
from rls_bench.backends.own_dtype import in_own_dtype
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class Eager(Backend):
    """Once: the visibility mask, and what padding holds zeroed. In the call: λ b, both softmaxes, both products.

    Products are of query's dtype, as in models' own: float16 scores past 65504 become NaN.
    """

    name = "eager"
    summary = "published form, every matrix materialised"
    kernels = ("aten::bmm", "aten::matmul", "gemm", "cutlass")

    def supports(self, problem: Problem) -> Support:
        """Every problem."""
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        visible = inputs.visible()
        key, value = inputs.without_padding()

        def call() -> Result:
            with in_own_dtype(inputs.query):
                output, scores, steered = eager_attention(
                    inputs.query,
                    key,
                    value,
                    inputs.logit_bias(),
                    visible,
                    eps=inputs.problem.eps,
                    scale=inputs.scale,
                )
            if inputs.problem.return_stats:
                return output, AttentionStats(*row_statistics(scores, steered, visible))
            return output

        return call


BACKEND = Eager()
