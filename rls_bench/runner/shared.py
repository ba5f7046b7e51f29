"""One problem's inputs and oracle results, worked out by the first worker that needs them and read by the others.

They lie in an unlinked file that the coordinator opened and every worker inherited, so that no death leaves anything
behind. Workers prepare one at a time, so nobody reads while another writes.
"""

from __future__ import annotations

import io
import os
from typing import Any

import torch

from rls_bench import agreement
from rls_bench.problems.draw import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class SharedInputs:
    """The file behind ``descriptor``; holds one problem at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # What the last draw found, less its tensors.
        self._truths: tuple[str, dict[str, list[torch.Tensor]]] = ("", {})

    def draw(self, problem: Problem) -> Inputs:
        """The inputs of ``problem``, in tensors of this process's own."""
        kept = self._load()
        if kept is None or kept["key"] != problem.key:
            drawn = draw(problem)
            tensors = {name: tensor.detach().cpu() for name, tensor in drawn.tensors().items()}
            kept = {"key": problem.key, "scale": drawn.scale, "tensors": tensors, "truths": {}}
            self._store(kept)
        self._truths = problem.key, kept["truths"]
        operands = {
            name: tensor.to(problem.device).requires_grad_(problem.requires_grad and name in ("query", "key", "value"))
            for name, tensor in kept["tensors"].items()
        }
        return Inputs(problem=problem, scale=kept["scale"], **operands)

    def truth(self, inputs: Inputs, steers: bool) -> agreement.Truth:
        """What the oracle says of ``inputs``, as drawn above, or of their λ = 0 form."""
        key, truths = self._truths
        if key != inputs.problem.key or not truths:
            names = ("steered", "unsteered")
            truths = {name: found.tensors() for name, found in zip(names, agreement.truths(inputs), strict=True)}
            kept = self._load()
            if kept is not None and kept["key"] == key:
                self._store({**kept, "truths": truths})
        return agreement.Truth.from_tensors(truths["steered" if steers else "unsteered"])

    def _load(self) -> dict[str, Any] | None:
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return None
        kept: dict[str, Any] = torch.load(io.BytesIO(os.pread(self._descriptor, size, 0)), weights_only=True)
        return kept

    def _store(self, kept: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        os.ftruncate(self._descriptor, 0)
        view, place = memoryview(buffer.getbuffer()), 0
        while place < len(view):
            place += os.pwrite(self._descriptor, view[place:], place)


def variant(inputs: Inputs, index: int) -> Inputs:
    """Inputs in other memory whose answer is another: as good as new ones, and much cheaper to make.

    Queries are rolled along their length (or negated, where there is but one) and the saliency is rolled; keys, values
    and masks keep their values.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in inputs.tensors().items()}
    query, bias = tensors["query"], tensors["bias"]
    # Copied in place, so that even the strides stay what a compiled call was compiled for.
    query.copy_(query.roll(index, 2) if query.shape[2] > index else query.neg() / index)
    bias.copy_(bias.roll(index * (bias.shape[-1] // 7 + 1), -1))
    for name in ("query", "key", "value"):
        tensors[name].requires_grad_(inputs.problem.requires_grad)
    return Inputs(problem=inputs.problem, scale=inputs.scale, **tensors)
