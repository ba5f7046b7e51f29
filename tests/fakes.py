"""Backends for tests of the harness, named ``fakes:HEALTHY`` and so on; each bad one has a single fault."""

from __future__ import annotations

import torch
from torch import Tensor

from rls_bench.backends.interface import YES, Backend, Call, Support
from rls_bench.inputs import Inputs
from rls_bench.problem import Problem


def attention(inputs: Inputs) -> Tensor:
    """Steered attention for eps = 0, all keys visible, no groups: [B, H, Lq, Dv]."""
    scores = inputs.scale * inputs.query @ inputs.key.mT + inputs.logit_bias()
    return torch.softmax(scores, -1) @ inputs.value


class Healthy(Backend):
    """Does what it should."""

    name = "healthy"
    summary = "a healthy fake"

    def supports(self, problem: Problem) -> Support:
        return YES

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: attention(inputs)


HEALTHY = Healthy()
