"""Our C++ kernel for x86-64, which picks AVX2, AVX-512 or AVX-512-BF16 as it runs."""

from __future__ import annotations

import torch
from rls_kernels.cpu import attention, build, launch, library, trial
from torch import Tensor

from rls_bench.backends.anew import Anew
from rls_bench.backends.derivatives import differentiable, refuse_tangents
from rls_bench.backends.interface import YES, AttentionStats, Backend, Call, Launch, Result, Support, no
from rls_bench.errors import BackendUnavailable
from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

_WIDEST_HEAD = 256


class Cpu(Backend):
    """Once: the kernels that a problem takes are compiled, or found in the user's cache. In the call: everything,
    packing of keys too."""

    name = "cpu"
    summary = "our C++ kernel: packed keys, exact eps, statistics in the pass"
    kernels = ("rls_kernels::cpu_forward",)

    def available(self) -> Support:
        """Linux on an x86-64 with AVX2, and a C++ compiler."""
        reason = build.unavailable_reason()
        return no(reason, mendable=not build.unfit_reason()) if reason else YES

    def proven(self) -> Support:
        """It can be built and loaded, and gives the right answer."""
        if not (available := self.available()):
            return available
        reason = trial.failure()
        return no(reason, mendable=True) if reason else YES

    def supports(self, problem: Problem) -> Support:
        """CPU tensors; every mask, layout, eps, statistic and gradient; head dims up to 256."""
        if problem.device != "cpu":
            return no("runs on CPU tensors only")
        if max(problem.head_dim, problem.value_dim) > _WIDEST_HEAD:
            return no(f"head dims go up to {_WIDEST_HEAD}")
        return YES

    def to_build(self, problem: Problem) -> dict[str, float]:
        """The parts of the library that no earlier process has built."""
        decodes = launch.is_decode(problem.query_heads, problem.kv_heads, problem.query_length)
        dtype = build.DTYPES.index(problem.dtype)
        return library.to_build(launch.operations(decodes, problem.requires_grad), dtype)

    def prepare(self, inputs: Inputs) -> Call:
        """Returns the call; see the class for what is done once. Raises BackendUnavailable where the build fails."""
        if not torch.compiler.is_compiling():
            _load(inputs)
        problem = inputs.problem
        refuse_tangents(self.name, inputs)

        def call() -> Result:
            result = attention.steered_attention(
                inputs.query,
                inputs.key,
                inputs.value,
                inputs.bias,
                inputs.strength,
                scale=inputs.scale,
                eps=problem.eps,
                is_causal=problem.is_causal,
                key_lengths=inputs.key_lengths,
                return_stats=problem.return_stats,
            )
            if problem.return_stats:
                return result[0], differentiable(inputs, AttentionStats(*result[1]))
            return result

        return call

    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        """Without gradients no operator of torch stands before the kernel, and what it is told of shapes and layouts is
        filled in once. Raises BackendUnavailable where the build fails.
        """
        problem = inputs.problem
        if problem.requires_grad:
            return super().launch(inputs, check_values)
        _load(inputs)
        tensors = (inputs.query, inputs.key, inputs.value, inputs.bias, inputs.strength, inputs.key_lengths)
        operands = launch.Operands(*tensors, inputs.scale, problem.is_causal)
        if problem.return_stats or (problem.eps and not operands.is_decode):
            if not problem.eps and operands.is_decode and not operands.copied:
                return _Decoding(self, inputs, check_values, operands)
            return _InPasses(self, inputs, check_values)
        return _Direct(operands, problem, check_values)


class _Direct(Launch):
    """One call of the kernel, which checks values as it reads them."""

    def __init__(self, operands: launch.Operands, problem: Problem, check_values: bool) -> None:
        self._launch = launch.Launch(operands, problem.eps, check_values)
        self._key_length = problem.key_length

    def see(self, key_lengths: Tensor | None) -> Tensor | None:
        """The lengths themselves."""
        return key_lengths

    def steer(
        self, bias: Tensor, strength: float | Tensor, seen: Tensor | None
    ) -> tuple[Tensor, float | Tensor, Tensor | None]:
        """The tensors themselves where the kernel can read them."""
        if not launch.is_readable(bias):
            bias = launch.readable(binding.lay_out_bias(bias))
        if isinstance(strength, Tensor) and not launch.is_readable(strength):
            strength = launch.readable(binding.lay_out_strength(strength, bias.device))
        return bias, strength, seen

    def run(
        self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, float | Tensor, Tensor | None]
    ) -> Tensor:
        """The kernel's output."""
        try:
            return self._launch(query, key, value, *steering)
        except ValueError:
            bias, strength, key_lengths = steering
            # Says which tensor, and what is wrong with it.
            binding.check_steering(bias, strength)
            if key_lengths is not None:
                binding.check_lengths(key_lengths, self._key_length)
            raise


class _InPasses(Anew):
    """Statistics, or the exact floor over many queries: as many passes of the kernel as the values ask for."""

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, Tensor, Tensor | None]) -> Result:
        """The kernel's output, with its statistics where the problem asks for them."""
        problem = self._problem
        operands = launch.Operands(query, key, value, *steering, self._scale, problem.is_causal)
        out, rows = launch.forward(operands, problem.eps, library.ALL_ROWS if problem.return_stats else library.NO_ROWS)
        if not problem.return_stats:
            return out
        return out, AttentionStats(*attention.statistics(rows))


class _Decoding(Anew):
    """Decode's output and statistics, in one call of the kernel."""

    def __init__(self, backend: Backend, inputs: Inputs, check_values: bool, operands: launch.Operands) -> None:
        super().__init__(backend, inputs, check_values)
        self._launch = launch.DecodeRows(operands)

    def steer(
        self, bias: Tensor, strength: float | Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """As the kernel reads them."""
        bias, strength, seen = super().steer(bias, strength, seen)
        return launch.readable(bias), launch.readable(strength), None if seen is None else seen.contiguous()

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, Tensor, Tensor | None]) -> Result:
        """The kernel's output with its statistics."""
        out, rows = self._launch(query, key, value, *steering)
        return out, AttentionStats(*attention.statistics(rows))


def _load(inputs: Inputs) -> None:
    try:
        launch.install(inputs.query, inputs.key, inputs.problem.requires_grad)
    except build.BuildError as error:
        raise BackendUnavailable(f"backend 'cpu': {error}") from error


BACKEND = Cpu()
