"""What a backend is: the one interface that every kernel stands behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rls_bench.problems.problem import Problem

if TYPE_CHECKING:
    from torch import Tensor

    from rls_bench.problems.inputs import Inputs


@dataclass(frozen=True)
class Support:
    """Yes, or no with the reason in one line."""

    supported: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.supported


YES = Support(True)


def no(reason: str) -> Support:
    """A refusal; ``reason`` is one line that says what is missing or what the kernel cannot do."""
    return Support(False, reason)


class AttentionStats(NamedTuple):
    """Row statistics of one call, without the matrix; each float32 [batch, query_heads, query_length].

    With ``Z`` the scaled scores of the visible keys: ``lse = logsumexp(Z)``, ``lse_steered = logsumexp(Z + λb)``,
    entropies in nats of A = softmax(Z) and of A' = softmax(Z + λb), and ``kl = KL(A ‖ A')``. They describe the
    eps = 0 form. Rows with no visible key hold 0.
    """

    lse: Tensor
    lse_steered: Tensor
    entropy: Tensor
    entropy_steered: Tensor
    kl: Tensor


# A call's result: the output alone, or with AttentionStats where the problem asks for them.
Result = Any
Call = Callable[[], Result]
# Takes query, key and value.
LayerCall = Callable[["Tensor", "Tensor", "Tensor"], Result]


class Backend:
    """One kernel behind the common interface; every backend is an instance of a subclass.

    ``available`` speaks of this machine, ``supports`` of one problem, ``measurable`` says whether a latency taken here
    would mean anything (an interpreter's would not). All three are cheap and touch no tensor.

    ``prepare`` does what is done once (compile, build masks, pack a cache) and returns the call that is timed; what
    production must redo for each new saliency stays inside that call. Each docstring says which is which. The call
    returns a Tensor [B, Hq, Lq, Dv] in query's dtype, or ``(Tensor, AttentionStats)`` where ``problem.return_stats``.
    It is differentiable in query, key, value, bias and strength when ``supports`` accepts ``problem.requires_grad``.
    """

    name: str
    # One line for `rls-bench list`.
    summary: str
    # False for the plain-attention floor, which ignores bias and strength.
    steers: bool = True
    # False where a torch.compile around the call cannot trace it.
    traceable: bool = True
    # True where the call is compiled by torch.compile: the switch that fills fresh memory would compile it anew, and
    # doesn't reach the buffers of its code.
    compiles: bool = False
    # Parts of the operator or kernel names of which a profiler must see at least one; empty: nothing to check.
    kernels: tuple[str, ...] = ()

    def available(self) -> Support:
        """Whether this machine has what the backend needs."""
        return YES

    def supports(self, problem: Problem) -> Support:
        """Whether the backend can do ``problem``."""
        raise NotImplementedError

    def measurable(self) -> Support:
        """Whether a latency taken on this machine means anything."""
        return YES

    def environment(self) -> Mapping[str, str]:
        """Variables that a fresh worker process needs before it imports anything."""
        return {}

    def prepare(self, inputs: Inputs) -> Call:
        """The call to be timed, with all that is done once already done."""
        raise NotImplementedError

    def prepare_layers(self, inputs: Inputs) -> LayerCall:
        """A call for every layer of a model's pass: they differ in query, key and value alone, which it takes, shaped
        as those of ``inputs``.

        It gives what ``prepare`` gives. Override it where something of the bias can be made once for all layers; this
        one prepares anew in each.
        """

        def call(query: Tensor, key: Tensor, value: Tensor) -> Result:
            return self.prepare(inputs.with_operands(query, key, value))()

        return call
