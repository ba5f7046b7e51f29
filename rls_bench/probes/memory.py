"""How much memory a call needs beside its inputs and output.

Two views on a CPU, since neither sees everything. Torch's allocator reports every tensor to the profiler, exactly,
but knows nothing of what a kernel takes from malloc. The kernel's count of resident pages sees everything, to a page
and with the noise of the process. The workspace is the larger of the two, where the pages exceed the allocator's
figure by more than that noise. On a GPU the caching allocator of torch is asked.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rls_bench.backends.interface import YES, Call, Support
from rls_bench.probes.interface import Measures
from rls_bench.problems.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor

# Thread stacks, allocator book-keeping and huge-page rounding move the resident count by about this much.
_PAGE_NOISE_BYTES = 1 << 20
_REPEATS = 3
# A call that takes this long is not repeated: its workspace is far above the noise.
_LONG_SECONDS = 0.1


class MemoryProbe:
    """Peak and workspace bytes of one call, after one that warms it up.

    A buffer that a library keeps between calls was there before the measured call, and doesn't count.
    """

    name = "memory"
    summary = "peak and workspace bytes of one call"

    def available(self) -> Support:
        return YES

    def measure(self, call: Call, backend: str, problem: Problem) -> Measures:
        """``workspace_bytes`` is what the call held at once beside its inputs and its result; ``peak_bytes`` has all.

        ``allocator_workspace_bytes`` and, on a CPU, ``resident_workspace_bytes`` are the views they come from.
        """
        call()
        if problem.device.startswith("cuda"):
            allocator, resident = _cuda_workspace(call, problem.device), None
        else:
            allocator, resident = _allocator_workspace(call), _resident_workspace(call)
        # Of query, key and value, and shaped as they are.
        gradients = problem.input_bytes if problem.requires_grad else 0
        workspace = allocator
        if resident is not None and resident > allocator + _PAGE_NOISE_BYTES:
            workspace = resident
        return {
            "peak_bytes": problem.input_bytes + problem.output_bytes + gradients + workspace,
            "workspace_bytes": workspace,
            "allocator_workspace_bytes": allocator,
            "resident_workspace_bytes": resident,
        }


PROBE = MemoryProbe()


def _cuda_workspace(call: Call, device: str) -> int:
    import torch

    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    kept = torch.cuda.memory_allocated(device) - before
    return peak - min(kept, _bytes_of(result))


def _allocator_workspace(call: Call) -> int:
    """Bytes that torch's CPU allocator handed out at once during the call, less what the result still holds."""
    # torch.profiler would import torch's compiler, which takes seconds.
    from torch.autograd.profiler import profile

    with profile(profile_memory=True, use_kineto=True, acc_events=True) as profiler:
        result = call()
    results = profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak - max(0, min(held, _bytes_of(result)))


def _resident_workspace(call: Call) -> int | None:
    """Resident bytes that the call added at its highest, less its result; None where the kernel doesn't tell."""
    found: list[int] = []
    began = time.monotonic()
    while len(found) < _REPEATS and (not found or time.monotonic() - began < _LONG_SECONDS):
        if (grown := _resident_growth(call)) is None:
            break
        found.append(grown)
    return min(found, default=None)


def _resident_growth(call: Call) -> int | None:
    gc.collect()
    # Free pages that malloc keeps would take the call's workspace in unseen.
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    try:
        # Writing 5 resets the high-water mark (proc(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        result = call()
        highest = _status_bytes("VmHWM")
    except OSError:
        return None
    return max(0, highest - before - _bytes_of(result))


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found.group(1)) * 1024


def _bytes_of(result: object) -> int:
    """Bytes behind the tensors of a call's result, each storage once."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in _tensors(result))}
    return sum(storages.values())


def _tensors(result: object) -> Iterator[Tensor]:
    import torch

    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from _tensors(part)
