"""Which kernel truly ran: asked of torch's profiler, outside timing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.profiler import profile

from rls_bench.backends.interface import Backend
from rls_bench.referee.trial import Finding

_MOST_NAMES = 12


def kernels_of(backend: Backend, call: Callable[[], Any]) -> tuple[Any, list[str], Finding | None]:
    """One call's result, and the names of what it ran, the costliest first: kernels on CUDA, operators on a CPU.

    The finding says ``wrong backend`` where none of them holds any of the substrings in ``backend.kernels``.
    """
    on_cuda = torch.cuda.is_available()
    # Not torch.profiler, which is the same but for importing torch's compiler: seconds in every worker.
    with profile(use_device="cuda" if on_cuda else None, use_kineto=True, acc_events=True) as profiler:
        result = call()
        if on_cuda:
            torch.cuda.synchronize()
    averages = profiler.key_averages()
    on_device = [event for event in averages if str(event.device_type).endswith("CUDA")]
    # An operator on the CPU is named by its key; a CUDA call is judged by the kernels on the device.
    events = on_device or list(averages)
    cost = "self_device_time_total" if on_device else "self_cpu_time_total"
    names = [event.key for event in sorted(events, key=lambda event: -getattr(event, cost))]
    wanted = backend.kernels
    if wanted and not any(part in name for part in wanted for name in names):
        return (
            result,
            names[:_MOST_NAMES],
            Finding(
                "wrong backend",
                f"wanted a kernel named like {' or '.join(wanted)}; ran {', '.join(names[:3]) or 'none'}",
            ),
        )
    return result, names[:_MOST_NAMES], None
