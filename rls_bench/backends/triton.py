"""Our fused Triton kernels; without CUDA they run in Triton's interpreter, which is right and never timed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from rls_bench.backends.anew import Anew
from rls_bench.backends.derivatives import differentiable, refuse_tangents
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Launch, Result, Support, no
from rls_bench.backends.ranges import can_be_read, refuse_beyond
from rls_bench.errors import BackendUnavailable, BackendUnsupported
from rls_bench.problems.binding import KeptStrength, largest
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_INTERPRETED = "runs in Triton's interpreter here: correct, never timed"
_INTERPRETS = Support(True, _INTERPRETED)
_OLD_INTERPRETER = (
    "the interpreter of Triton before 3.7 fails with numpy 2.4 and later: pip install 'numpy<2.4', or a later Triton"
)
_WIDEST_HEAD = 256
# Rows or keys that one block of a kernel holds at most, and a stride below which no block reaches 2^31 elements.
_LARGEST_BLOCK = 256
_FAR = 2**31 // _LARGEST_BLOCK // 4
# Of a bias and of a strength.
_MOST_NUMBER = 2.0**44
_LEAST_NUMBER = 2.0**-60
# Scores below some hundreds make no difference to a logit of this size in float64.
_TOLD_APART = 1e16
# Statistics are of scores that have λb taken off again: what rounding leaves of those is 1e-3 here.
_MOST_BESIDE_STATISTICS = 2.0**13


def _interpreter_fails(triton: str, numpy: str) -> bool:
    """Whether Triton's interpreter asks numpy for a conversion that numpy gave up in 2.4."""
    found = [tuple(int(part) for part in text.split(".")[:2]) for text in (triton, numpy)]
    return found[0] < (3, 7) and found[1] >= (2, 4)


class Triton(Backend):
    """Once: nothing; the first call of a layout compiles. In the call: the kernel, which reads b and λ as given.

    Block sizes are the table's, or what ``rls_kernels.triton.attention.tune`` has kept for such a call: it is never
    tuned unasked.
    """

    name = "triton"
    summary = "our fused Triton kernels: bias starts the score accumulator"
    kernels = ("prefill_kernel", "floored_kernel", "narrow_kernel", "decode_kernel")

    def available(self) -> Support:
        """Triton, and CUDA or else its interpreter, which a worker process is started with."""
        if find_spec("triton") is None:
            return no("needs Triton: pip install triton (Linux)")
        if torch.cuda.is_available():
            return YES
        return no(_OLD_INTERPRETER) if _interpreter_fails(version("triton"), version("numpy")) else _INTERPRETS

    def supports(self, problem: Problem) -> Support:
        """Every mask, layout, eps, statistic and gradient; head dims up to 256."""
        if max(problem.head_dim, problem.value_dim) > _WIDEST_HEAD:
            return no(f"head dims go up to {_WIDEST_HEAD}")
        return YES

    def measurable(self) -> Support:
        """Only on a GPU."""
        return YES if torch.cuda.is_available() else no(_INTERPRETED)

    def environment(self) -> Mapping[str, str]:
        """Without CUDA the kernels are interpreted, which Triton decides when it is imported."""
        return {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once.

        Raises BackendUnavailable for CPU tensors in a process that doesn't interpret Triton.
        """
        import triton

        if inputs.query.device.type == "cpu" and not triton.knobs.runtime.interpret:
            raise BackendUnavailable(
                "backend 'triton': CPU tensors need Triton's interpreter, which this process was started without; "
                "set TRITON_INTERPRET=1 before Python starts, or give CUDA tensors"
            )
        from rls_kernels.triton import attention

        problem = inputs.problem
        refuse_tangents(self.name, inputs)
        options: dict[str, Any] = {
            "scale": inputs.scale,
            "eps": problem.eps,
            "is_causal": problem.is_causal,
            "return_stats": problem.return_stats,
        }

        # In each call, for some are copies, which new values in the inputs would not reach.
        def operands() -> tuple[Any, ...]:
            bias, strength = _in_range(inputs)
            tensors = map(near, (inputs.query, inputs.key, inputs.value, bias, strength))
            return (*tensors, inputs.key_lengths)

        # What is refused is so before any call.
        operands()

        def call() -> Any:
            output, stats = attention.steered_attention(*operands(), **options)
            return (output, differentiable(inputs, AttentionStats(*stats))) if problem.return_stats else output

        return call

    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        """On a GPU without gradients: what is launched is decided once, and no operator of torch stands before it."""
        tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength)
        if inputs.query.device.type != "cuda" or inputs.problem.requires_grad or any(map(_is_far, tensors)):
            return super().launch(inputs, check_values)
        return Direct(self, inputs, check_values)


class Direct(Anew):
    """Launches of one layout of operands, by the kernels' own memory of it."""

    def __init__(self, backend: Backend, inputs: Inputs, check_values: bool) -> None:
        """Of CPU tensors, which the interpreter takes, values beyond the kernels' range are not looked at."""
        from rls_kernels.triton import attention

        super().__init__(backend, inputs, check_values)
        self._strength = KeptStrength(inputs.query.device)
        operands = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength, inputs.key_lengths)
        problem = self._problem
        self._launch = attention.prepare(
            *operands,
            scale=inputs.scale,
            eps=problem.eps,
            is_causal=problem.is_causal,
            return_stats=problem.return_stats,
        )

    def steer(
        self, bias: Tensor, strength: float | Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Bias, strength and lengths as the kernels read them; a number stays on the device while it is the same."""
        if bias.dtype is not torch.float32 or self._check_values or isinstance(strength, Tensor):
            return super().steer(bias, self._strength.lay_out(strength), seen)
        # The kernels go by the strides that they were made ready for, whatever axes of 1 the caller leaves out.
        return bias, self._strength.lay_out(strength), seen

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, Tensor, Tensor | None]) -> Result:
        """The kernel's output, with its statistics where the problem asks for them."""
        output, stats = self._launch(query, key, value, *steering)
        return (output, AttentionStats(*stats)) if self._problem.return_stats else output


def near(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy where its rows lie so far apart that an offset inside of a block leaves 32 bits."""
    return tensor.contiguous() if _is_far(tensor) else tensor


def _is_far(tensor: Tensor) -> bool:
    if all(abs(stride) < _FAR for stride in tensor.stride()):
        return False
    reach = sum(
        abs(stride) * min(size, _LARGEST_BLOCK)
        for stride, size in zip(tensor.stride()[2:], tensor.shape[2:], strict=True)
    )
    return reach >= 2**31


def _in_range(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Bias and strength as the kernels can carry them, where they can be read: λ b over the scale, in powers of two,
    must leave float32 room. What lies beyond saturates where that changes no order, and is refused elsewhere.
    """
    bias, strength = inputs.bias, inputs.strength
    if not can_be_read(inputs):
        return bias, strength
    refuse_beyond("triton", "scale", inputs.scale, 2.0**20)
    refuse_beyond("triton", "1 / scale", 1 / inputs.scale, 2.0**20)
    if inputs.key_lengths is not None:
        # Padding may hold anything, and is never seen.
        visible = torch.arange(bias.shape[-1], device=bias.device) < inputs.key_lengths[:, None, None]
        bias = bias.where(visible, 0.0)
    largest_bias, largest_strength = largest(bias), largest(strength)
    if inputs.problem.return_stats:
        refuse_beyond("triton", "λb beside statistics", largest_bias * largest_strength, _MOST_BESIDE_STATISTICS)
    if inputs.problem.eps and largest_bias * largest_strength > _TOLD_APART:
        _refuse_rounded_rows(inputs, bias)
    if max(largest_bias, largest_strength) <= _MOST_NUMBER:
        return bias, strength
    # The strength takes of the bias what it has room for: a power of two, which rounds nothing.
    exponent = math.floor(math.log2(_MOST_NUMBER / max(largest_strength, _LEAST_NUMBER)))
    bias, strength = bias * 2.0**-exponent, strength * 2.0**exponent
    beyond = bias[bias.abs() > _MOST_NUMBER].unique()
    if beyond.numel() > beyond.sign().unique().numel():
        raise BackendUnsupported(
            f"backend 'triton': λb goes up to {_MOST_NUMBER**2:.3g} in its kernels, and several values lie beyond, of "
            f"which the largest is {largest_bias * largest_strength:.3g}; they would count alike"
        )
    return bias.clamp(-_MOST_NUMBER, _MOST_NUMBER), strength


def _refuse_rounded_rows(inputs: Inputs, bias: Tensor) -> None:
    """Raise BackendUnsupported where float64 would weigh several keys alike, for λb is so large that it rounds their
    scores away: the sums that stand for eps hold weights relative to the largest, and go on telling scores apart.
    """
    # In float64, which holds any product of two numbers of float32.
    added = inputs.strength.double()[..., None] * bias.double()[:, :, None, :]
    visible = inputs.visible()
    added = added if visible is None else added.masked_fill(~visible, -torch.inf)
    most = added.amax(-1, keepdim=True)
    # A row that sees nothing is 0 whatever its keys.
    rounded = (most.abs() > _TOLD_APART) & most.isfinite() & ((added == most).sum(-1, keepdim=True) > 1)
    if bool(rounded.any()):
        raise BackendUnsupported(
            f"backend 'triton': beside eps, the largest λb that a query sees goes up to {_TOLD_APART:.3g}, unless one "
            f"key alone has it; got {float(most[rounded][0]):.3g}; take a smaller one, or 'cpu'"
        )


BACKEND = Triton()
