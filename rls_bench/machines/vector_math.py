"""Have MKL choose its kernels for exponentials, logarithms and their like before two threads ask at once.

On CPUs torch hands contiguous float tensors of more than 2048 elements to MKL's vector functions, a share to each
thread. MKL 2024.2, which torch's wheels hold, looks a function's kernel up in that function's first call in a process.
Where two threads make it together, one now and then gets a kernel good to 11 bits instead of 24, for that call alone:
an error of 1e-4 in half of a result that no second call shows (pytorch issue 188792).
"""

from __future__ import annotations

import threading

import torch

# What torch hands to MKL (aten/src/ATen/cpu/vml.h), and what it is built of.
_FUNCTIONS = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "digamma", "erf", "erfc", "erfinv"),
    *("exp", "exp2", "expm1", "floor", "frac", "lgamma", "log", "log10", "log1p", "log2", "reciprocal", "round"),
    *("rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
_lock = threading.Lock()
_settled = False


def settle() -> None:
    """Once a process: call each function on one element, which one thread does; a fork inherits what was chosen."""
    global _settled
    # Asked in this order, a trace takes no guard on what is settled by then.
    if torch.compiler.is_compiling() or _settled:
        return
    with _lock:
        if _settled:
            return
        with torch.inference_mode():
            for dtype in (torch.float32, torch.float64):
                half = torch.full((1,), 0.5, dtype=dtype, device="cpu")
                # Within a mode that makes fakes nothing would be worked out.
                if type(half) is not torch.Tensor:
                    return
                for function in _FUNCTIONS:
                    getattr(torch, function)(half)
        _settled = True
