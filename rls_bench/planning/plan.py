"""A plan: one call checked, its backend chosen and made ready, to be run for many calls like it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rls_bench.backends import registry
from rls_bench.backends.interface import Launch, Result
from rls_bench.planning.likeness import Likeness
from rls_bench.planning.watching import is_watched
from rls_bench.problems import binding
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.traffic import counting


class Plan:
    """Runs calls whose tensors have the metadata of those that it was made from; made by ``rls_bench.plan``.

    Any number of threads may call one plan at a time. It keeps the bias, strength and key lengths that it was made
    from, and what its backend made of them: a call that gives neither bias nor strength makes nothing of them anew.
    """

    def __init__(
        self,
        backend: str,
        inputs: Inputs,
        bias: Tensor,
        strength: float | Tensor,
        key_lengths: Tensor | None,
        check_values: bool,
    ) -> None:
        """``inputs`` are checked; bias, strength and key_lengths are theirs, as the caller gave them."""
        self._backend = backend
        self._problem = inputs.problem
        self._scale = inputs.scale
        self._bias, self._strength, self._key_lengths = bias, strength, key_lengths
        self._takes_number = not isinstance(strength, Tensor)
        self._likeness = likeness_of(inputs.query, inputs.key, inputs.value, bias, strength)
        self._launch: Launch = registry.LOADED[backend].launch(inputs, check_values)
        self._seen = self._launch.see(key_lengths)
        self._steering = self._launch.steer(bias, strength, self._seen)

    @property
    def backend(self) -> str:
        """The name of the backend that runs."""
        return self._backend

    @property
    def problem(self) -> Problem:
        """What the backend was chosen for."""
        return self._problem

    def __repr__(self) -> str:
        return f"Plan({self._backend!r} for {self._problem.title})"

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None = None,
        strength: float | Tensor | None = None,
    ) -> Any:
        """What ``steered_attention`` would return; a bias or strength left out is the one that the plan was made from.

        Raises ValueError where the metadata of a tensor differs from the plan's, and says in what; where values that
        are checked make no sense, too.
        """
        steers_anew = bias is not None or strength is not None
        if bias is None:
            bias = self._bias
        if strength is None:
            strength = self._strength
        if torch.compiler.is_dynamo_compiling() or is_watched():
            return self._run_in_sight(query, key, value, bias, strength)
        if self._takes_number:
            is_alike = not isinstance(strength, Tensor) and self._likeness.holds(query, key, value, bias)
        else:
            is_alike = isinstance(strength, Tensor) and self._likeness.holds(query, key, value, bias, strength)
        if not is_alike:
            raise ValueError(self._difference(query, key, value, bias, strength))
        if counting.active:
            counting.count(self._problem)
        if not steers_anew:
            return self._launch.run(query, key, value, self._steering)
        if self._takes_number:
            binding.check_number("strength", strength)  # type: ignore[arg-type]
        return self._launch.run(query, key, value, self._launch.steer(bias, strength, self._seen))

    def _run_in_sight(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: float | Tensor
    ) -> Result:
        """Through torch's operators, which whatever traces, transforms or profiles this thread takes in."""
        named = {"query": query, "key": key, "value": value, "bias": bias}
        if isinstance(strength, Tensor):
            named["strength"] = strength
        if difference := self._likeness.difference_in_sizes(**named):
            raise ValueError(f"{difference} ({_ADVICE})")
        if not torch.compiler.is_compiling() and counting.active:
            counting.count(self._problem)
        inputs = Inputs(
            self._problem,
            query,
            key,
            value,
            binding.lay_out_bias(bias),
            binding.lay_out_strength(strength, query.device),
            self._scale,
            None if self._key_lengths is None else binding.lay_out_lengths(self._key_lengths),
        )
        return registry.LOADED[self._backend].prepare(inputs)()

    def _difference(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, strength: float | Tensor) -> str:
        if self._takes_number == isinstance(strength, Tensor):
            kinds = ("a Tensor", "a number") if self._takes_number else ("a number", "a Tensor")
            return f"strength: planned as {kinds[1]}; got {kinds[0]} ({_ADVICE})"
        tensors = {"query": query, "key": key, "value": value, "bias": bias}
        if isinstance(strength, Tensor):
            tensors["strength"] = strength
        return f"{self._likeness.difference(**tensors)} ({_ADVICE})"


_ADVICE = "make another plan for such calls"


def likeness_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    strength: float | Tensor,
    key_lengths: Tensor | None = None,
) -> Likeness:
    """Of the tensors of a call, in this order."""
    tensors = {
        "query": query,
        "key": key,
        "value": value,
        "bias": bias,
        "strength": strength,
        "key_lengths": key_lengths,
    }
    return Likeness(**{name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)})
