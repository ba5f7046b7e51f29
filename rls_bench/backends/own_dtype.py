"""Products in the dtype of what is given, whatever an autocast around the call would make of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_AS_IT_IS = nullcontext()


def in_own_dtype(tensor: Tensor) -> AbstractContextManager[Any]:
    """Within it, no product on the device of ``tensor`` is cast.

    An autocast would round float32 operands to half precision, and only in kernels that are made of torch's operators.
    """
    # Asked first, for to ask for one device costs a short call five times as much.
    if not torch._C._is_any_autocast_enabled():
        return _AS_IT_IS
    return torch.autocast(tensor.device.type, enabled=False)
