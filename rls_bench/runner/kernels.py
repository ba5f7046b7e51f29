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

    The finding says ``wrong backend`` where none of them holds any of the substrings in ``backend.kernels``. On CUDA
    those may name an operator, too: which kernel torch's own operators launch hangs on the GPU and on cuBLAS's
    version. Such operators stand behind the kernels' names.
    """
    on_cuda = torch.cuda.is_available()
    # Not torch.profiler, which is the same but for importing torch's compiler: seconds in every worker.
    with profile(use_device="cuda" if on_cuda else None, use_kineto=True, acc_events=True) as profiler:
        result = call()
        if on_cuda:
            torch.cuda.synchronize()
    # Anybody can write an annotation; it is no proof that anything ran.
    events = [event for event in profiler.key_averages() if not event.is_user_annotation]
    on_device = [event for event in events if str(event.device_type).endswith("CUDA")]
    operators = _names([event for event in events if event not in on_device], "self_cpu_time_total")
    launched = _names(on_device, "self_device_time_total")
    wanted = backend.kernels
    meant = [name for name in operators if any(part in name for part in wanted)]
    # A CPU call is judged by its operators alone.
    names = (launched[: _MOST_NAMES - 1] + meant if launched else operators)[:_MOST_NAMES]
    if wanted and not any(part in name for part in wanted for name in launched + meant):
        return (
            result,
            names,
            Finding(
                "wrong backend",
                f"wanted a kernel named like {' or '.join(wanted)}; ran {', '.join(names[:3]) or 'none'}",
            ),
        )
    return result, names, None


def _names(events: list[Any], cost: str) -> list[str]:
    """Names of ``events``, the costliest first."""
    return [event.key for event in sorted(events, key=lambda event: -getattr(event, cost))]
