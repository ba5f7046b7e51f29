"""Whether something looks at, or transforms, the operators that this thread calls.

Then a call goes through torch.library, where it is seen; otherwise nothing need stand before the kernel.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_watched() -> bool:
    """A profiler, torch.func, a dispatch mode, torch.jit.trace or forward-mode differentiation is at work."""
    return (
        torch.autograd._profiler_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
    )
