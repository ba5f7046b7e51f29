"""One problem's inputs and oracle results, worked out by the first worker that needs them and read by the others.

They lie in an unlinked file that the coordinator opened and every worker inherited, so that no death leaves anything
behind. Workers prepare one at a time, so nobody reads while another writes.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import Any

import torch

from rls_bench import agreement
from rls_bench.draw import draw
from rls_bench.inputs import Inputs
from rls_bench.problem import Problem


class SharedInputs:
    """The file behind ``descriptor``; holds one problem at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept: dict[str, Any] = {}

    def draw(self, problem: Problem) -> Inputs:
        """The inputs of ``problem``, in tensors of this process's own."""
        kept = self._load(problem)
        if kept is None:
            drawn = draw(problem)
            tensors = {name: tensor.detach().cpu() for name, tensor in drawn.tensors().items()}
            self._store({"key": problem.key, "scale": drawn.scale, "tensors": tensors, "truths": {}})
            return drawn
        operands = {
            name: tensor.to(problem.device).requires_grad_(problem.requires_grad and name in ("query", "key", "value"))
            for name, tensor in kept["tensors"].items()
        }
        return Inputs(problem=problem, scale=kept["scale"], **operands)

    def truth(self, inputs: Inputs, steers: bool) -> agreement.Truth:
        """What the oracle says of ``inputs``, as drawn above, or of their λ = 0 form."""
        kept = self._load(inputs.problem)
        name = "steered" if steers else "unsteered"
        if kept is not None and name in kept["truths"]:
            return agreement.Truth.from_tensors(kept["truths"][name])
        if not steers:
            inputs = replace(inputs, strength=torch.zeros_like(inputs.strength))
        found = agreement.truth(inputs)
        if kept is not None:
            kept["truths"][name] = found.tensors()
            self._store(kept)
        return found

    def _load(self, problem: Problem) -> dict[str, Any] | None:
        size = os.fstat(self._descriptor).st_size
        if size == 0:
            return None
        kept: dict[str, Any] = torch.load(io.BytesIO(os.pread(self._descriptor, size, 0)), weights_only=True)
        return kept if kept["key"] == problem.key else None

    def _store(self, kept: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        os.ftruncate(self._descriptor, 0)
        view, place = memoryview(buffer.getbuffer()), 0
        while place < len(view):
            place += os.pwrite(self._descriptor, view[place:], place)


def variant(inputs: Inputs, index: int) -> Inputs:
    """Inputs with the same values in other places and other memory: as good as new ones, and much cheaper to make.

    Queries, and keys with their values, are rolled along their lengths; masks and the saliency stay where they are.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in inputs.tensors().items()}
    steps = {"query": index, "key": index * (inputs.problem.key_length // 7 + 1)}
    steps["value"] = steps["key"]
    for name, step in steps.items():
        tensors[name] = tensors[name].roll(step, 2).requires_grad_(inputs.problem.requires_grad)
    return Inputs(problem=inputs.problem, scale=inputs.scale, **tensors)
