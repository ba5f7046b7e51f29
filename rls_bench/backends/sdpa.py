"""torch's SDPA kernels with λ b as an additive mask, each pinned and none falling back."""

from __future__ import annotations

import math

import torch
from rls_baselines.sdpa import (
    cudnn_attention,
    dense,
    efficient_attention,
    flash_attention,
    flash_on_cpu,
    math_attention,
)
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Launch, Support, no
from rls_bench.backends.own_dtype import in_own_dtype
from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs, visible_keys
from rls_bench.problems.problem import Problem

ONE_PASS = "one pass of SDPA keeps no unsteered weights: eps must be 0"
NO_STATS = "SDPA returns no row statistics"


def _one_pass(problem: Problem) -> Support:
    if problem.eps:
        return no(ONE_PASS)
    if problem.return_stats:
        return no(NO_STATS)
    return YES


class _Masked(Backend):
    """Once: the mask, and what padding holds zeroed. In the call: λ b, joined with the mask, and the kernel."""

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        visible = inputs.visible()
        hidden = _hidden_rows(inputs.problem, visible)
        key, value = inputs.without_padding()

        def call() -> Tensor:
            output = self.attend(inputs.query, key, value, _mask(inputs, visible), inputs.scale)
            return output if hidden is None else output.masked_fill(hidden, 0.0)

        return call

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        """The kernel; ``mask`` is float32 [B or 1, Hq or 1, Lq or 1, Lk]."""
        raise NotImplementedError


class Math(_Masked):
    """torch's composite kernel, which materialises the scores."""

    name = "sdpa-math"
    summary = "torch SDPA, math kernel, bias as mask"
    kernels = ("_scaled_dot_product_attention_math",)

    def supports(self, problem: Problem) -> Support:
        """Everything that one pass can do."""
        return _one_pass(problem)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        """The composite kernel."""
        with in_own_dtype(query):
            return math_attention(query, key, value, mask, scale=scale, is_causal=False)


class Efficient(_Masked):
    """The memory-efficient CUDA kernel; its mask must have query's dtype, so λ b is rounded to it (``_rounded``).

    Before torch 2.14 it knows no groups: each call repeats keys and values for every query head, as a user would.
    """

    name = "sdpa-efficient"
    summary = "torch SDPA, memory-efficient CUDA kernel, bias as mask"
    kernels = ("efficient_attention", "fmha_cutlass")

    def available(self) -> Support:
        """CUDA."""
        return _cuda()

    def supports(self, problem: Problem) -> Support:
        """CUDA, one pass, head dims a multiple of 16 bytes, no gradient to the mask."""
        multiple = 4 if problem.dtype == "float32" else 8
        if problem.device != "cuda":
            return no("needs CUDA tensors")
        if not (passes := _one_pass(problem)):
            return passes
        if problem.head_dim % multiple or problem.value_dim % multiple:
            return no(f"head dims must be multiples of {multiple} in {problem.dtype}")
        if problem.query_length * problem.key_length > 2**32:
            return no("offsets overflow 32 bits where Lq · Lk > 2³² (pytorch #187227)")
        if problem.requires_grad:
            return no("builds a full [B, H, Lq, Lk] gradient of the mask, or crashes (pytorch #148476)")
        return YES

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        """The kernel, with the mask rounded to query's dtype."""
        key, value = (_repeated(tensor, query.shape[1]) for tensor in (key, value))
        return efficient_attention(query, key, value, _rounded(mask, query.dtype), scale=scale)


class CuDNN(_Masked):
    """cuDNN's fused kernel.

    Before torch 2.14 it misreads a float32 mask beside half queries (pytorch #191612), so that λ b is rounded to their
    dtype there (``_rounded``).
    """

    name = "sdpa-cudnn"
    summary = "torch SDPA, cuDNN kernel, bias as mask"
    kernels = ("cudnn",)

    def available(self) -> Support:
        """CUDA."""
        return _cuda()

    def supports(self, problem: Problem) -> Support:
        """CUDA halves with head dims that are multiples of 8 up to 128."""
        if problem.device != "cuda":
            return no("needs CUDA tensors")
        if not (passes := _one_pass(problem)):
            return passes
        if problem.dtype == "float32":
            return no("takes float16 and bfloat16 only")
        if problem.head_dim % 8 or problem.value_dim % 8 or max(problem.head_dim, problem.value_dim) > 128:
            return no("head dims must be multiples of 8, at most 128")
        if problem.key_length == 1:
            return no("refuses a single key")
        if problem.requires_grad:
            return no("has no gradient for the mask")
        return YES

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        """The kernel."""
        mask = mask if _torch_at_least(2, 14) else _rounded(mask, query.dtype)
        return cudnn_attention(query, key, value, mask, scale=scale)


def _rounded(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``mask`` in ``dtype``, whose range λ b keeps to.

    What that costs, worst head, real inputs B1 H8/2 L512 D128 causal, by torch's math kernel on a CPU: bfloat16 goes
    from 1.7e-3 to 2.8e-3 at λ = 1 and to 1.2e-2 at 5 and 20; float16 from 2.2e-4 to 3.2e-4, 2.2e-3 and 2.4e-3. Past 2 ×
    eager's own error, which float16 is at λ = 5 and bfloat16 at 20, the agreement check calls it wrong.
    """
    if dtype == torch.float32:
        return mask
    most = torch.finfo(dtype).max
    return torch.where(mask == -torch.inf, mask, mask.clamp(-most, most)).to(dtype)


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values [B, Hkv, Lk, ·] for every query head, where the kernel needs that."""
    if tensor.shape[1] == heads or _torch_at_least(2, 14):
        return tensor
    return tensor.repeat_interleave(heads // tensor.shape[1], 1)


class CpuFlash(Backend):
    """torch's CPU flash kernel.

    Once: the visibility mask, unless the kernel's own causal mask serves, and what padding holds zeroed. In the call:
    λ b, joined with the mask, and the kernel.
    """

    name = "sdpa-cpu"
    summary = "torch SDPA, CPU flash kernel, bias as mask"
    kernels = ("_scaled_dot_product_flash_attention_for_cpu",)

    def supports(self, problem: Problem) -> Support:
        """CPU tensors, one pass, equal head dims, no gradient to the mask."""
        if problem.device != "cpu":
            return no("needs CPU tensors")
        if not (passes := _one_pass(problem)):
            return passes
        if problem.head_dim != problem.value_dim:
            return no("query and value head dims must be equal")
        if problem.requires_grad:
            return no("has no gradient for the mask")
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once."""
        own_causal = _has_own_causal(inputs)
        visible = None if own_causal else inputs.visible()
        hidden = _hidden_rows(inputs.problem, visible)
        key, value = inputs.without_padding()

        def call() -> Tensor:
            mask = _mask(inputs, visible)
            output = flash_attention(inputs.query, key, value, mask, scale=inputs.scale, is_causal=own_causal)
            return output if hidden is None else output.masked_fill(hidden, 0.0)

        return call

    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        """Without lengths, layers share λ b joined with the mask, and calls the mask alone."""
        if inputs.problem.has_key_lengths:
            return super().launch(inputs, check_values)
        return _CpuFlashLaunch(inputs, check_values)


class _CpuFlashLaunch(Launch):
    """Sees the mask, steers λ b joined with it, runs the kernel. There is no padding."""

    def __init__(self, inputs: Inputs, check_values: bool) -> None:
        self._problem = inputs.problem
        self._device = inputs.query.device
        self._scale = inputs.scale
        self._bias_shape = (*inputs.bias.shape[:2], 1, inputs.bias.shape[2])
        self._check_values = check_values
        self._own_causal = _has_own_causal(inputs)
        self._are_dense = all(tensor.stride(-1) == 1 for tensor in (inputs.query, inputs.key, inputs.value))
        self._strength = binding.KeptStrength(self._device, ndim=4)
        # A bias that all batches and heads share is broadcast to a number's four axes without a view.
        self._is_shared = inputs.bias.shape[:2] == (1, 1)
        # A product's last axis is dense where the bias's is; that of one key may have any stride.
        self._is_bias_dense = inputs.bias.stride(-1) == 1 and inputs.bias.shape[-1] > 1

    def see(self, key_lengths: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The visibility mask, unless the kernel's own causal mask serves, and the rows that see nothing."""
        visible = None if self._own_causal else visible_keys(self._problem, key_lengths, self._device)
        return visible, _hidden_rows(self._problem, visible)

    def steer(
        self, bias: Tensor, strength: float | Tensor, seen: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """λ b joined with the mask, and the rows that see nothing."""
        visible, hidden = seen
        factor = self._strength.lay_out(strength)
        is_number = not isinstance(strength, Tensor)
        bias_float32 = bias if bias.dtype is torch.float32 else bias.float()
        if not is_number:
            factor = factor.unsqueeze(-1)
        added = (bias_float32 if self._is_shared else bias_float32.view(*self._bias_shape)) * factor
        # Where a sum of products is finite, so are they and what they were made of; finite ones may overflow it.
        if self._check_values and not (is_number and math.isfinite(added.sum().item())):
            binding.check_steering(bias, strength)
        if visible is None and self._is_bias_dense:
            return added, hidden
        return dense(_joined(added, visible)), hidden

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, Tensor | None]) -> Tensor:
        """The kernel's output."""
        mask, hidden = steering
        if not self._are_dense:
            query, key, value = dense(query), dense(key), dense(value)
        output = flash_on_cpu(query, key, value, 0.0, self._own_causal, attn_mask=mask, scale=self._scale)[0]
        return output if hidden is None else output.masked_fill(hidden, 0.0)


def _mask(inputs: Inputs, visible: Tensor | None) -> Tensor:
    """λ b, with -inf where nothing is visible."""
    return _joined(inputs.logit_bias(), visible)


def _joined(logit_bias: Tensor, visible: Tensor | None) -> Tensor:
    return logit_bias if visible is None else torch.where(visible, logit_bias, -torch.inf)


def _has_own_causal(inputs: Inputs) -> bool:
    """Whether the kernel's own causal mask, which is top-left aligned, serves."""
    # By a branch: in a trace the comparison would be a symbol, which the kernel doesn't take.
    if not inputs.problem.masks_causally or not inputs.problem.is_square:
        return False
    return inputs.key_lengths is None


def _hidden_rows(problem: Problem, visible: Tensor | None) -> Tensor | None:
    """Queries that see no key, bool, broadcast to the output; None where there can be none."""
    return None if visible is None or not problem.may_hide_whole_rows else ~visible.any(-1, keepdim=True)


def _cuda() -> Support:
    return YES if torch.cuda.is_available() else no("needs CUDA")


def _torch_at_least(major: int, minor: int) -> bool:
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    return found >= (major, minor)


MATH = Math()
EFFICIENT = Efficient()
CUDNN = CuDNN()
CPU = CpuFlash()
