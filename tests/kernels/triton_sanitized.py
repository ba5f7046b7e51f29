"""Every Triton kernel at awkward sizes, for ttsem to watch: ``python -m ttsem.sanitize`` and this file.

ttsem runs code written for CUDA on the CPU and stops at an access out of bounds or a race between programs. With the
argument ``planted`` it runs a kernel whose bias load has no mask, which must be found.
"""

import sys
from dataclasses import replace

import torch
import triton
import triton.language as tl
from rls_kernels.triton import tiles
from rls_kernels.triton.call import Call, Tensors
from rls_kernels.triton.configurations import Configuration
from rls_kernels.triton.forward import Decode, Prefill
from rls_kernels.triton.gradients import backward

# ttsem models no inline assembly.
tiles.HAS_ASSEMBLY = tl.constexpr(False)
SMALL = Configuration(16, 32, num_warps=4, num_stages=1, partials=8, bias_early=True, rows_anew=True, masked_n=16)
# Lq, Lk, D, Dv, query heads, kv heads, causal, padded, eps, λ per query, dtype
CASES = [
    (33, 41, 20, 24, 2, 1, False, False, 0.0, False, torch.float32),
    (19, 37, 16, 16, 1, 1, True, True, 0.0, False, torch.bfloat16),
    (37, 19, 16, 16, 1, 1, True, False, 1e-3, False, torch.float16),
    (17, 33, 24, 16, 2, 2, True, True, 1e-3, True, torch.float32),
    (17, 33, 16, 16, 1, 1, False, False, 0.0, True, torch.bfloat16),
    (19, 257, 16, 24, 2, 1, True, True, 1e-3, False, torch.bfloat16),
]


def draw(query_length: int, key_length: int, head_dim: int, value_dim: int, heads: int, kv_heads: int, causal: bool,
         padded: bool, eps: float, per_query: bool, dtype: torch.dtype) -> tuple[Call, Tensors]:  # fmt: skip
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda")

    tensors = Tensors(
        query=normal(2, heads, query_length, head_dim).to(dtype),
        key=normal(2, kv_heads, key_length, head_dim).to(dtype),
        value=normal(2, kv_heads, key_length, value_dim).to(dtype),
        bias=normal(2, heads, key_length),
        strength=normal(2, heads, query_length if per_query else 1),
        key_lengths=torch.tensor([0, key_length - 3], dtype=torch.int32, device="cuda") if padded else None,
    )
    return Call.of(tensors, head_dim**-0.5, eps, causal), tensors


def every_kernel() -> None:
    for case in CASES:
        call, tensors = draw(*case)
        small = replace(SMALL, slice_d=16 if call.dtype == torch.float32 else None)
        forward = Prefill(call, True, small)(tensors)
        Prefill(call, False, small)(tensors)
        backward(call, tensors, forward, torch.randn_like(forward.out), small)
        call, tensors = draw(3, 67, *case[2:])
        Decode(call, True)(tensors)


@triton.jit
def planted_kernel(bias_ptr, out_ptr, length, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    keys = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + keys, tl.load(bias_ptr + keys), mask=keys < length)


def planted() -> None:
    bias = torch.randn(41, device="cuda")
    planted_kernel[(3,)](bias, torch.empty_like(bias), 41, BLOCK=16)


if __name__ == "__main__":
    planted() if "planted" in sys.argv else every_kernel()
