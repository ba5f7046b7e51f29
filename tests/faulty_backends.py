"""Backends that each break one rule, for the suite that must notice."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import torch
from rls_baselines.eager import eager_attention
from torch import Tensor

from rls_bench.backends.anew import Anew
from rls_bench.backends.interface import YES, Backend, Call, Launch, Support, no
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem


class Right(Backend):
    """Eager attention without statistics: conforms."""

    name = "right"
    summary = "right"

    def supports(self, problem: Problem) -> Support:
        return no("gives no statistics") if problem.return_stats else YES

    def prepare(self, inputs: Inputs) -> Call:
        return lambda: self.attend(inputs)

    def attend(self, inputs: Inputs) -> Tensor:
        bias, visible, eps = inputs.logit_bias(), inputs.visible(), inputs.problem.eps
        key, value = inputs.without_padding()
        return eager_attention(inputs.query, key, value, bias, visible, eps=eps, scale=inputs.scale)[0]


class SeesPadding(Right):
    """A weight of 0 doesn't undo what padding holds."""

    def attend(self, inputs: Inputs) -> Tensor:
        bias, visible, eps = inputs.logit_bias(), inputs.visible(), inputs.problem.eps
        return eager_attention(inputs.query, inputs.key, inputs.value, bias, visible, eps=eps, scale=inputs.scale)[0]


class ForgetsMask(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        plain = replace(inputs.problem, is_causal=False)
        return super().attend(replace(inputs, problem=plain, key_lengths=None))


class IgnoresStrengthPerQuery(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        return super().attend(replace(inputs, strength=inputs.strength[..., :1]))


class NaNWithoutKeys(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        output = super().attend(inputs)
        if inputs.key_lengths is not None:
            output[inputs.key_lengths == 0] = float("nan")
        return output


class SharesScratch(Right):
    def prepare(self, inputs: Inputs) -> Call:
        self.scratch = inputs
        return lambda: self.attend(self.scratch)


class KeepsFirstLayersKeys(Right):
    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        launch = Anew(self, inputs, check_values)
        right = launch.run
        launch.run = lambda query, key, value, steering: right(query, inputs.key, value, steering)
        return launch


class ChangesInput(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        output = super().attend(inputs)
        inputs.query.mul_(1.0 + 1e-6)
        return output


class DropsGradient(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        return super().attend(replace(inputs, bias=inputs.bias.detach()))


class Raises(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        if inputs.problem.head_dim == 256:
            raise RuntimeError("no such tile\nsecond line")
        return super().attend(inputs)


class DeclinesInSilence(Right):
    def supports(self, problem: Problem) -> Support:
        return Support(not problem.eps)


class DeclinesAll(Right):
    def supports(self, problem: Problem) -> Support:
        return no("not today")


class Nameless(Right):
    name = ""


class CrashesOnEps(Right):
    def attend(self, inputs: Inputs) -> Tensor:
        if inputs.problem.eps:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().attend(inputs)


CRASHES_ON_EPS = CrashesOnEps()
RIGHT = Right()
FORGETS_MASK = ForgetsMask()
NO_BACKEND = torch.nn.Identity()


def raises_as_a_function(query, key, value, bias, strength):  # type: ignore[no-untyped-def]
    raise RuntimeError(f"no such tile: {list(query.shape)}")
