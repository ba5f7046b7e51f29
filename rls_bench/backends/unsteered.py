"""Plain attention: the floor that the cost of steering is read against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import torch
from rls_baselines.sdpa import (
    additive_mask,
    cudnn_attention,
    efficient_attention,
    flash_attention,
    math_attention,
)
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support, no
from rls_bench.backends.own_dtype import in_own_dtype
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_REPEATS = 3
_CALLS = 5
# About a millisecond, in which a few calls are queued.
_SPIN_CYCLES = 2_000_000


class Unsteered(Backend):
    """Plain SDPA by the fastest of torch's kernels that can do it; bias and strength are ignored.

    On a CPU that is the flash kernel, or the math kernel where flash cannot. On a GPU each that runs is timed: torch's
    own preference is another on each generation, and a floor that is not the lowest makes steering look cheap.

    Once: the choice, the visibility mask, unless the kernel's own causal mask serves, and what padding holds zeroed. In
    the call: the kernel.
    """

    name = "unsteered"
    summary = "plain SDPA, no steering: the floor"
    steers = False
    kernels = ("flash", "cudnn", "efficient_attention", "fmha", "_scaled_dot_product_attention_math")

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
        mask = additive_mask(None, visible)
        key, value = inputs.without_padding()

        def call(attend: Callable[..., Tensor]) -> Tensor:
            # Zeros and -inf are the same in every dtype, and some kernels want query's.
            its_mask = mask if mask is None or attend is math_attention else mask.to(inputs.query.dtype)
            with in_own_dtype(inputs.query):
                output = attend(inputs.query, key, value, its_mask, scale=inputs.scale, is_causal=own_causal)
            if visible is None or not inputs.may_hide_whole_rows():
                return output
            return output.masked_fill(~visible.any(-1, keepdim=True), 0.0)

        calls = [partial(call, attend) for attend in self._able(problem, visible)]
        return calls[0] if problem.device == "cpu" else _fastest(calls)

    def _able(self, problem: Problem, visible: Tensor | None) -> list[Callable[..., Tensor]]:
        """Torch's kernels that may be able to do ``problem``, the likeliest first; on CUDA some may yet refuse."""
        able: list[Callable[..., Tensor]] = [flash_attention] if self._flash_can(problem, visible) else []
        if problem.device == "cuda":
            able += [cudnn_attention] if problem.dtype != "float32" else []
            # Before torch 2.14 it knows no groups.
            able += [efficient_attention] if problem.group_size == 1 else []
        return [*able, math_attention]

    @staticmethod
    def _flash_can(problem: Problem, visible: Tensor | None) -> bool:
        if problem.head_dim != problem.value_dim:
            return False
        if problem.device == "cpu":
            return True
        return problem.dtype != "float32" and problem.head_dim <= 256 and visible is None


def _fastest(calls: Sequence[Call]) -> Call:
    """The call that takes the device the least time, of those that torch doesn't refuse; raises its last refusal."""
    times: list[float] = []
    refusal: RuntimeError | None = None
    for call in calls:
        try:
            call()
            times.append(min(_device_ms(call) for _ in range(_REPEATS)))
        except RuntimeError as error:
            refusal = error
            times.append(inf)
    if refusal is not None and min(times) == inf:
        raise refusal
    return calls[times.index(min(times))]


def _device_ms(call: Call) -> float:
    """Milliseconds a call on the GPU, of a few that were queued while it spun."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_SPIN_CYCLES)
    start.record()
    for _ in range(_CALLS):
        call()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / _CALLS


BACKEND = Unsteered()
