"""Products in the dtype of what is given, whatever an autocast around the call would make of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def in_own_dtype(tensor: Tensor) -> AbstractContextManager[Any]:
    """Within it, no product on the device of ``tensor`` is cast.

    An autocast would round float32 operands to half precision, and only in kernels that are made of torch's operators.
    """
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
