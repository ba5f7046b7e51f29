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
    """Yes, or no with the reason in one line; ``mendable`` where a person could change that on this machine."""

    supported: bool
    reason: str = ""
    mendable: bool = False

    def __bool__(self) -> bool:
        return self.supported


YES = Support(True)


def no(reason: str, *, mendable: bool = False) -> Support:
    """A refusal; ``reason`` is one line that says what is missing or what the kernel cannot do."""
    return Support(False, reason, mendable)


class AttentionStats(NamedTuple):
    """Row statistics of one call, without the matrix; each float32 [batch, query_heads, query_length].

    With ``Z`` the scaled scores of the visible keys: ``lse = logsumexp(Z)``, ``lse_steered = logsumexp(Z + λb)``,
    entropies in nats of A = softmax(Z) and of A' = softmax(Z + λb), and ``kl = KL(A ‖ A')``. They describe the
    eps = 0 form. Rows with no visible key hold 0. Differentiable in query, key, bias and strength, as the output is.
    """

    lse: Tensor
    lse_steered: Tensor
    entropy: Tensor
    entropy_steered: Tensor
    kl: Tensor


# A call's result: the output alone, or with AttentionStats where the problem asks for them.
Result = Any
Call = Callable[[], Result]


class Launch:
    """What a backend has made ready for every call of one kind, in three steps: what a caller need not repeat is done
    once, and a model's layers share what comes before ``run``.

    It keeps no tensor, so that a memory of many doesn't, and any number of threads may use one at a time.
    """

    def see(self, key_lengths: Tensor | None) -> Any:
        """What ``steer`` needs to know of the lengths, int [B] as the caller gave them, and of the masks."""
        raise NotImplementedError

    def steer(self, bias: Tensor, strength: float | Tensor, seen: Any) -> Any:
        """What ``run`` needs to know of bias and strength, both as the caller gave them, or with their axes of 1."""
        raise NotImplementedError

    def run(self, query: Tensor, key: Tensor, value: Tensor, steering: Any) -> Result:
        """The result for these operands."""
        raise NotImplementedError


class Backend:
    """One kernel behind the common interface; every backend is an instance of a subclass.

    ``available`` speaks of this machine, ``supports`` of one problem, ``measurable`` says whether a latency taken here
    would mean anything (an interpreter's would not). All three are cheap and touch no tensor.

    ``prepare`` does what is done once (compile, build masks, pack a cache) and returns a call; what production must
    redo for each new saliency stays inside that call. Each docstring says which is which. ``launch`` makes ready for
    many calls of one kind what ``prepare`` makes ready for one: plans run it, and where a backend has one of its own,
    it is what is timed, too; ``prepare``'s call is timed where it hasn't. A call returns a Tensor
    [B, Hq, Lq, Dv] in query's dtype, or ``(Tensor, AttentionStats)`` where ``problem.return_stats``. It is
    differentiable in query, key, value, bias and strength when ``supports`` accepts ``problem.requires_grad``.
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

    def proven(self) -> Support:
        """Whether it truly works here: what is made once is made, loaded and tried, which may take a compiler's time.

        ``auto``, ``list`` and ``doctor`` ask this; it is ``available`` where there is nothing to try.
        """
        return self.available()

    def supports(self, problem: Problem) -> Support:
        """Whether the backend can do ``problem``."""
        raise NotImplementedError

    def measurable(self) -> Support:
        """Whether a latency taken on this machine means anything."""
        return YES

    def to_build(self, problem: Problem) -> Mapping[str, float]:
        """What ``prepare`` would still have to compile, and is kept for later processes: by name, in about how many
        seconds. A run's forecast counts it; empty where nothing is kept, or all of it is there.
        """
        return {}

    def environment(self) -> Mapping[str, str]:
        """Variables that a fresh worker process needs before it imports anything."""
        return {}

    def prepare(self, inputs: Inputs) -> Call:
        """The call, with all that is done once already done. A subclass defines this or ``launch``."""
        launch = self.launch(inputs)
        seen = launch.see(inputs.key_lengths)
        return lambda: launch.run(
            inputs.query, inputs.key, inputs.value, launch.steer(inputs.bias, inputs.strength, seen)
        )

    def launch(self, inputs: Inputs, check_values: bool = False) -> Launch:
        """What serves every call whose tensors have the metadata of those of ``inputs``.

        With ``check_values`` it raises ValueError for values that make no sense, somewhere on the way. Define it where
        something can be made ready for all such calls, or for the layers of a model; this one prepares anew in each.
        """
        if type(self).prepare is Backend.prepare:
            raise NotImplementedError(f"backend {self.name!r}: define prepare or launch")
        from rls_bench.backends.anew import Anew

        return Anew(self, inputs, check_values)
