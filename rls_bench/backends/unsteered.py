"""Plain attention: the floor that the cost of steering is read against."""

from __future__ import annotations

from rls_baselines.sdpa import additive_mask, flash_attention, math_attention
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class Unsteered(Backend):
    """Plain SDPA by torch's flash kernel, or its math kernel where flash cannot; bias and strength are ignored.

    Once: the visibility mask, unless the kernel's own causal mask serves, and what padding holds zeroed. In the call:
    the kernel.
    """

    name = "unsteered"
    summary = "plain SDPA, no steering: the floor"
    steers = False
    kernels = ("flash", "_scaled_dot_product_attention_math")

    def supports(self, problem: Problem) -> Support:
        """Every problem whose eps is 0 and which asks for no statistics."""
        if problem.eps or problem.return_stats:
            return no("plain attention knows neither eps nor steering statistics")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        problem = inputs.problem
        own_causal = problem.masks_causally and problem.is_square and inputs.key_lengths is None
        visible = None if own_causal else inputs.visible()
        attend = flash_attention if self._flash_can(problem, visible) else math_attention
        mask = additive_mask(None, visible)
        key, value = inputs.without_padding()

        def call() -> Tensor:
            output = attend(inputs.query, key, value, mask, scale=inputs.scale, is_causal=own_causal)
            if visible is None or not inputs.may_hide_whole_rows():
                return output
            return output.masked_fill(~visible.any(-1, keepdim=True), 0.0)

        return call

    @staticmethod
    def _flash_can(problem: Problem, visible: Tensor | None) -> bool:
        if problem.head_dim != problem.value_dim:
            return False
        if problem.device == "cpu":
            return True
        return problem.dtype != "float32" and problem.head_dim <= 256 and visible is None


BACKEND = Unsteered()
