"""w = exp(λ b) folded into the values: the published form, eps included, from a plain flash kernel."""

from __future__ import annotations

from rls_baselines.valuefold import EXTRA_COLUMNS, key_weights, value_folded_attention
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class ValueFold(Backend):
    """Once: nothing but the padding mask. In the call: the weights, the folded values, the kernel, the division."""

    name = "valuefold"
    summary = "exp(λb) folded into the flash kernel's values, exact eps"
    kernels = ("flash",)

    def supports(self, problem: Problem) -> Support:
        """No causal mask, float16 or lone float32 query, and a λ b that no query or head of a KV group changes."""
        if problem.return_stats:
            return no("the flash kernel returns no row statistics")
        if problem.masks_causally:
            return no("one shift of exp(λb) serves all rows: a huge future key would underflow the early ones")
        if problem.strength_layout == "bhq":
            return no("values know no query: λ must not vary with it")
        if problem.group_size > 1 and (problem.strength_layout != "scalar" or problem.bias_layout == "bhk"):
            return no("values are shared by a KV group: λb must not vary within it")
        if problem.dtype == "float16":
            return no("float16 is too narrow for exp(λb)")
        # Keys that steering lifts may have small plain weights, where torch's fast exp is at its coarsest. Over many
        # queries that is lost in the floor; a single one came to 1-4 × the floor at 64-1024 keys, 7 × at 8192 (Zen 3).
        if problem.device == "cpu" and problem.dtype == "float32" and problem.query_length == 1:
            return no("float32 with a single query: the flash kernel's error at lifted keys can pass 2 × the floor")
        if problem.device == "cuda" and problem.dtype == "float32":
            return no("the CUDA flash kernel takes bfloat16 only of the dtypes that hold exp(λb)")
        if problem.device == "cuda" and problem.value_dim + EXTRA_COLUMNS > 256:
            return no(f"the CUDA flash kernel takes head dims up to 256; folding adds {EXTRA_COLUMNS}")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        visible = inputs.visible()
        padding = None if visible is None else visible[:, :, 0, :]

        def call() -> Tensor:
            weights = key_weights(inputs.logit_bias()[:, :, 0, :], padding)
            return value_folded_attention(
                inputs.query,
                inputs.key,
                inputs.value,
                weights,
                padding,
                eps=inputs.problem.eps,
                scale=inputs.scale,
            )

        return call


BACKEND = ValueFold()
