"""Whether something looks at, or transforms, the operators that this thread calls.

Then a call goes through torch.library, where it is seen; otherwise nothing need stand before the kernel.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

# Bound once: every call asks, and looking a name up in its module takes as long as the question.
_is_profiled = torch.autograd._profiler_enabled
_peek_transform = torch._C._functorch.peek_interpreter_stack
_count_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state


def is_watched() -> bool:
    """A profiler, torch.func, a dispatch mode, torch.jit.trace or forward-mode differentiation is at work."""
    return (
        _is_profiled()
        or _peek_transform() is not None
        or _count_modes() > 0
        or _tracing_state() is not None
        or forward_ad._current_level >= 0
    )
