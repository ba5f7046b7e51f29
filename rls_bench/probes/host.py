"""What a call costs the host: the thread's CPU time until the call returns, beside torch's own attention.

On a GPU that is all that stands before the kernel, which nobody waits for here; on a CPU the kernel is in it.
"""

from __future__ import annotations

import time
from statistics import median

from rls_bench.backends import registry
from rls_bench.backends.interface import YES, Call, Support
from rls_bench.errors import ProbeUnavailable
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem

_ROUNDS = 9
_BURST = 20


class HostProbe:
    """The call in turns with ``scaled_dot_product_attention``, whose mask λ b is made in the call."""

    name = "host"
    summary = "the host's time a call, beside torch's own attention"

    def available(self) -> Support:
        return YES

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """Medians over bursts; ``over_sdpa`` is the median ratio of neighbouring ones.

        Raises ProbeUnavailable where a latency of ``backend`` means nothing here, as an interpreter's does.
        """
        if not (support := registry.get(backend).measurable()):
            raise ProbeUnavailable(f"probe host: {backend}: {support.reason}")
        calls = (call, _by_hand(problem))
        taken_ns: tuple[list[float], list[float]] = ([], [])
        for each in calls:
            each()
        for _ in range(_ROUNDS):
            for each, taken in zip(calls, taken_ns, strict=True):
                taken.append(_burst_ns(each, problem.device))
        ratios = [ours / line for ours, line in zip(*taken_ns, strict=True)]
        return {"host_ns": median(taken_ns[0]), "sdpa_host_ns": median(taken_ns[1]), "over_sdpa": median(ratios)}


PROBE = HostProbe()


def _burst_ns(call: Call, device: str) -> float:
    import torch

    # A GPU's queue that is full makes the host wait.
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    start_ns = time.thread_time_ns()
    for _ in range(_BURST):
        call()
    return (time.thread_time_ns() - start_ns) / _BURST


def _by_hand(problem: Problem) -> Call:
    import torch.nn.functional as F

    from rls_bench.problems.draw import draw

    inputs = draw(problem)
    visible = inputs.visible()

    def call() -> object:
        mask = inputs.logit_bias()
        if visible is not None:
            mask = mask.masked_fill(~visible, float("-inf"))
        return F.scaled_dot_product_attention(
            inputs.query,
            inputs.key,
            inputs.value,
            attn_mask=mask.to(inputs.query.dtype),
            scale=inputs.scale,
            enable_gqa=problem.group_size > 1,
        )

    return call
