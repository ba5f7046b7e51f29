"""What an exception of a backend makes of its cell."""

from __future__ import annotations

import torch

from rls_bench.backends.words import one_line, told
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.records.record import Status
from rls_bench.referee.trial import Wrong
from rls_bench.runner import room


def status_of(error: BaseException) -> tuple[Status, str]:
    """The status, and the reason in one line."""
    if isinstance(error, Wrong):
        return "wrong", str(error)
    # What this machine lacks, or cannot do, is no fault of the backend's.
    if isinstance(error, BackendUnavailable):
        return "unavailable", one_line(str(error))
    if isinstance(error, BackendUnsupported):
        return "unsupported", one_line(str(error))
    if (place := room.lacking(error)) is not None:
        return "unavailable", one_line(f"there is no room to write in {place}: free some, or set TMPDIR; {told(error)}")
    # torch's CPU allocator raises a plain RuntimeError.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in told(error):
        return "out_of_memory", told(error)
    return "failed", told(error)
