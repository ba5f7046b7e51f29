"""w = exp(λ b) folded into the values: the published form, eps included, from a plain flash kernel."""

from __future__ import annotations

import torch
from rls_baselines.sdpa import flash_attention, pad_columns
from rls_baselines.valuefold import EXTRA_COLUMNS, LEAST_MASS, fold_values, key_weights, unfold
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.backends.ranges import can_be_read
from rls_bench.errors import BackendUnsupported
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

# Values up to this are rounded to 0 by some matrix units, whatever the kernel.
_NO_NORMAL_NUMBERS = 4 * torch.finfo(torch.float32).tiny


class ValueFold(Backend):
    """Once: the padding mask and, but for gradients, what padding holds overwritten. In the call: the weights, the
    folded values, the kernel, the division.

    A row of which the plain weights all but vanish where the saliency lifts is beyond it, of tiny values sooner:
    refused where values can be read, NaN elsewhere.
    """

    name = "valuefold"
    summary = "exp(λb) folded into the flash kernel's values, exact eps"
    kernels = ("flash",)

    def supports(self, problem: Problem) -> Support:
        """No causal mask, float16 or lone query, and a λ b that no query or head of a KV group changes."""
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
        # Keys that steering lifts may have small plain weights, where torch's fast exp is at its coarsest: in float32 a
        # single query came to 1-4 × the floor at 64-1024 keys, 7 × at 8192 (Zen 3). In bfloat16 a folded value, both
        # sums and their quotient are rounded where others round once: 2.2 × in one of 2,048 heads of a ragged decode.
        # Over many queries both are lost in the floor.
        if problem.query_length == 1:
            return no("a single query: what folding rounds at lifted keys can pass 2 × the floor")
        if problem.device == "cuda" and problem.dtype == "float32":
            return no("the CUDA flash kernel takes bfloat16 only of the dtypes that hold exp(λb)")
        if problem.device == "cuda" and problem.value_dim + EXTRA_COLUMNS > 256:
            return no(f"the CUDA flash kernel takes head dims up to 256; folding adds {EXTRA_COLUMNS}")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        visible = inputs.visible()
        padding = None if visible is None else visible[:, :, 0, :]
        # The kernel wants Dq = Dk = Dv: zero columns leave every score as it is.
        width = max(inputs.problem.head_dim, inputs.problem.value_dim + EXTRA_COLUMNS)

        def cache() -> tuple[Tensor, Tensor]:
            key, value = inputs.without_padding()
            if visible is not None:
                # The kernel weighs padding, too: as the first key, it outweighs nothing that is seen.
                key = torch.where(visible.mT, key, key[:, :, :1])
            return pad_columns(key, width - key.shape[-1]), value

        # In training keys and values are new in every step, and their gradients go through the padding.
        kept = None if inputs.problem.requires_grad else cache()
        checked = can_be_read(inputs)

        def call() -> Tensor:
            key, value = kept or cache()
            weights = key_weights(inputs.logit_bias()[:, :, 0, :], padding, value.dtype)
            folded = fold_values(value, weights, padding)
            sums = flash_attention(
                pad_columns(inputs.query, width - inputs.query.shape[-1]),
                key,
                pad_columns(folded, width - folded.shape[-1]),
                None,
                scale=inputs.scale,
                is_causal=False,
            )
            output, mass = unfold(sums[..., : folded.shape[-1]], value, weights, inputs.problem.eps)
            lost = ~(mass >= LEAST_MASS)
            # Products of plain weights and folded values underflow as well, of tiny values before the mass does.
            held = output.detach().abs().amax(-1, keepdim=True) * mass.detach()
            faint, least = held < LEAST_MASS, mass
            if not checked:
                lost = lost | (faint & (held > 0.0))
            elif bool(faint.any()):
                size = _sizes(value, inputs.problem)
                least = mass * size.clamp(max=1.0)
                lost = lost | ((least < LEAST_MASS) & (size > _NO_NORMAL_NUMBERS))
            if visible is not None:
                empty = ~visible.any(-1, keepdim=True)
                output, lost = output.masked_fill(empty, 0.0), lost & ~empty
            if checked and bool((lost & ~mass.isnan()).any()):
                raise BackendUnsupported(
                    f"backend 'valuefold': wanted keys that keep {LEAST_MASS:g} of a row's plain weight where λb lifts "
                    f"them, and as much times the largest value; got {float(least[lost].min()):.3g}. Take a smaller "
                    "strength, or another backend"
                )
            return output.masked_fill(lost, torch.nan).to(inputs.query.dtype)

        return call


def _sizes(value: Tensor, problem: Problem) -> Tensor:
    """The largest magnitude among each query head's values, float32 [B, Hq, 1, 1]."""
    return value.detach().float().abs().amax((-2, -1), keepdim=True).repeat_interleave(problem.group_size, dim=1)


BACKEND = ValueFold()
