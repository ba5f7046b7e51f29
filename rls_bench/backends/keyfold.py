"""λ b folded into two more key columns, for flash kernels that take no bias."""

from __future__ import annotations

import math

import torch
from rls_baselines.keyfold import COLUMNS, column_weight, fold_keys, fold_queries
from rls_baselines.sdpa import flash_attention, pad_columns
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.backends.ranges import can_be_read, refuse_beyond
from rls_bench.problems.binding import largest
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

# Up to this, a column, its product with the query's and that over the scale keep to their dtypes' ranges.
_LARGEST = {"float32": 2.0**62, "bfloat16": 2.0**62, "float16": 2.0**15}
_FLOAT16_HOLDS = 65504.0


class KeyFold(Backend):
    """Once: the cache's columns (keys and values padded), but for gradients. In the call: folding the saliency and the
    new queries.

    Keys are per KV head, so what varies across the query heads of a group must ride on the query's side: the strength
    may (layouts h, bh, bhq), a per-head bias may not.
    """

    name = "keyfold"
    summary = "λb as (hi, lo) key columns into the flash kernel"
    kernels = ("flash",)

    def available(self) -> Support:
        """Wherever torch has a flash kernel."""
        return YES

    def supports(self, problem: Problem) -> Support:
        """One pass; no mask but the kernel's own square causal one; a bias that a KV head's queries share."""
        if problem.eps:
            return no("one pass of plain attention keeps no unsteered weights: eps must be 0")
        if problem.return_stats:
            return no("the flash kernel returns no row statistics")
        if problem.has_key_lengths:
            return no("the flash kernel takes no mask: key_lengths must be None")
        if problem.masks_causally and not problem.is_square:
            return no("the flash kernel's causal mask is top-left aligned: Lq must be 1 or Lk")
        if problem.bias_layout == "bhk" and problem.group_size > 1:
            return no("a bias that varies within a KV group has no place in the keys they share")
        if problem.device == "cuda" and problem.dtype == "float32":
            return no("the CUDA flash kernel takes float16 and bfloat16 only")
        if problem.device == "cuda" and max(problem.head_dim + COLUMNS, problem.value_dim) > 256:
            return no(f"the CUDA flash kernel takes head dims up to 256; folding adds {COLUMNS}")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once.

        Raises BackendUnsupported where λ b can be read and is too large for float16. Where it can't, it saturates.
        """
        problem = inputs.problem
        width = _width(problem)

        def padded() -> tuple[Tensor, Tensor]:
            key = torch.nn.functional.pad(inputs.key, (0, width - problem.head_dim))
            return key, pad_columns(inputs.value, width - problem.value_dim)

        # In training keys and values are new in every step, and their gradients go through the padding.
        kept = None if problem.requires_grad else padded()
        most = _LARGEST[problem.dtype]
        shrink, weight, saturates = 1.0, column_weight(inputs.scale), not can_be_read(inputs)
        if not saturates:
            per_key, per_query = (largest(factor) for factor in _split(inputs))
            if max(per_key / (inputs.scale * weight), per_query * weight) > most:
                # Most of the scale goes to the queries, a power of two and so exact: λ b is then a column as it is.
                shrink, weight, saturates = 2.0 ** math.floor(math.log2(inputs.scale)), 1.0, True
                # Less what rounding may add.
                most = torch.finfo(inputs.query.dtype).max * (1 - 2**-7) * shrink / inputs.scale
                if problem.dtype == "float16":
                    refuse_beyond(self.name, "λb in a float16 column", max(per_key, per_query), _FLOAT16_HOLDS)
        scale = inputs.scale / shrink

        def call() -> Tensor:
            per_key, per_query = _split(inputs)
            per_key, per_query = per_key / (scale * weight), per_query * weight
            if saturates:
                per_key, per_query = per_key.clamp(-most, most), per_query.clamp(-most, most)
            query = inputs.query if shrink == 1.0 else inputs.query * shrink
            cache, value = kept or padded()
            output = flash_attention(
                fold_queries(pad_columns(query, width - problem.head_dim - COLUMNS), per_query),
                fold_keys(cache, per_key),
                value,
                None,
                scale=scale,
                is_causal=problem.masks_causally,
            )
            return output[..., : problem.value_dim]

        return call


def _width(problem: Problem) -> int:
    """The common head dim after folding: the kernel wants Dq = Dk = Dv, on CUDA in multiples of 8."""
    width = max(problem.head_dim + COLUMNS, problem.value_dim)
    return -(-width // 8) * 8 if problem.device == "cuda" else width


def _split(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """λ b as a factor per key and one per query, float32; what may vary within a KV group rides on the query."""
    on_keys = inputs.strength.shape[1:] == (1, 1)
    if on_keys:
        return inputs.strength * inputs.bias, torch.ones_like(inputs.strength)
    return inputs.bias, inputs.strength


BACKEND = KeyFold()
