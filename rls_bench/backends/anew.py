"""Launches of a backend that makes nothing ready: each call is prepared anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rls_bench.backends.interface import Launch, Result
from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs

if TYPE_CHECKING:
    from rls_bench.backends.interface import Backend


class Anew(Launch):
    """``backend.prepare`` and its call, for tensors laid out as ``prepare`` wants them."""

    def __init__(self, backend: Backend, inputs: Inputs, check_values: bool) -> None:
        self._backend = backend
        self._problem = inputs.problem
        self._scale = inputs.scale
        self._check_values = check_values

    def see(self, key_lengths: Tensor | None) -> Tensor | None:
        """Lengths, int32 [B]."""
        if key_lengths is None:
            return None
        if self._check_values:
            binding.check_lengths(key_lengths, self._problem.key_length)
        return binding.lay_out_lengths(key_lengths)

    def steer(
        self, bias: Tensor, strength: float | Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Bias, strength and lengths as ``Inputs`` holds them."""
        if self._check_values:
            binding.check_steering(bias, strength)
        return binding.lay_out_bias(bias), binding.lay_out_strength(strength, bias.device), seen

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: tuple[Tensor, Tensor, Tensor | None]) -> Result:
        """The prepared call's result."""
        bias, strength, key_lengths = steering
        inputs = Inputs(self._problem, query, key, value, bias, strength, self._scale, key_lengths)
        return self._backend.prepare(inputs)()
