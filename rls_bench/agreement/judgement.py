"""Is a backend right: its output against the float64 oracle, judged by what the dtype itself can do.

The floor of a (batch, head) is the largest of three errors: plain eager attention in the same dtype, eager steered
attention on the very problem, and the dtype's unit roundoff. Eager is what every user compares with; the unit roundoff
stands in where eager happens to be exact (a single visible key). Where eager's scores leave the dtype (float16 beyond
65504), eager in float32 stands in, its output rounded, and twice the unit roundoff.

Every comparison here passes on what is shown to hold, so that nothing passes on NaN.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from rls_baselines.eager import eager_attention, row_statistics
from rls_baselines.reference import OracleResult, steered_attention_oracle
from torch import Tensor

from rls_bench.agreement.causes import explain
from rls_bench.backends.interface import AttentionStats, Backend, Call
from rls_bench.machines import vector_math
from rls_bench.problems.inputs import Inputs
from rls_bench.records.record import Agreement

# A backend may err twice as much as the floor, and in float32 by 1e-6 more.
FLOOR_FACTOR = 2.0
FLOAT32_SLACK = 1e-6
# Statistics are logarithms: judged by absolute error against eager's own, with this slack per unit of size.
STATS_SLACK = 1e-4
# Scores that the oracle works out for one problem; a larger one is judged on evenly spaced rows, its ends included.
_MOST_SCORES = 2**22
# mallopt(3): fresh memory is filled with the complement of the low byte, where the whole number is not 0.
_M_PERTURB = -6
_EVERY_BIT = 0x100


def oracle(inputs: Inputs, rows: Tensor | None = None) -> OracleResult:
    """The float64 answer for ``inputs``, of all queries or of the indices ``rows``."""
    vector_math.settle()
    return steered_attention_oracle(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.bias,
        inputs.strength,
        eps=inputs.problem.eps,
        is_causal=inputs.problem.is_causal,
        key_lengths=inputs.key_lengths,
        scale=inputs.scale,
        rows=rows,
    )


@dataclass(frozen=True)
class Truth:
    """What every backend's output on the same inputs is held against.

    ``rows`` are the queries judged, int64; ``exact`` the oracle's results of them; ``floor`` float64 [B, Hq].
    """

    rows: Tensor
    exact: OracleResult
    floor: Tensor

    def tensors(self) -> list[Tensor]:
        """All of it as plain tensors, to be kept in a file."""
        return [self.rows, self.floor, *self.exact]

    @staticmethod
    def from_tensors(tensors: Sequence[Tensor]) -> Truth:
        """What ``tensors`` gave."""
        rows, floor, *exact = tensors
        return Truth(rows, OracleResult(*exact), floor)


def truth(inputs: Inputs) -> Truth:
    """Ask the oracle about ``inputs``; the costly part of a check, and the same for every backend."""
    return truths(inputs)[0]


def truths(inputs: Inputs) -> tuple[Truth, Truth]:
    """The truth of ``inputs``, and of them with λ = 0, which its floor needs anyway."""
    rows = sample_rows(inputs)
    plain = replace(inputs, strength=torch.zeros_like(inputs.strength))
    exact, plain_exact = oracle(inputs, rows), oracle(plain, rows)
    plain_floor, floor = (
        _eager_error(form, rows, right.output) for form, right in ((plain, plain_exact), (inputs, exact))
    )
    return Truth(rows, exact, torch.maximum(plain_floor, floor)), Truth(rows, plain_exact, plain_floor)


def _eager_error(inputs: Inputs, rows: Tensor, exact: Tensor) -> Tensor:
    """How far eager attention is off, float64 [B, Hq], and the unit roundoff at least."""
    roundoff = torch.finfo(inputs.query.dtype).eps / 2
    output = _eager(inputs, rows)[0].double().cpu()
    error = relative_error(output, exact).clamp_min(roundoff)
    if bool(output.isfinite().all()):
        return error
    rounded = _eager(_in_float32(inputs), rows)[0].to(inputs.query.dtype).double().cpu()
    stand_in = relative_error(rounded, exact).clamp_min(2 * roundoff)
    return torch.where(output.isfinite().flatten(2).all(-1), error, stand_in)


def _in_float32(inputs: Inputs) -> Inputs:
    return inputs.with_operands(inputs.query.float(), inputs.key.float(), inputs.value.float())


@dataclass(frozen=True)
class Answer:
    """One call's ``result`` as returned and a copy of its output; ``before`` the call, the inputs by name."""

    result: Any
    output: Tensor
    before: dict[str, Tensor]


def ask(call: Call, inputs: Inputs, compiled: bool = False) -> Answer:
    """Call once, fresh memory filled with NaN, and keep what a verdict needs; ``compiled`` by torch.compile."""
    vector_math.settle()
    before = {name: tensor.detach().clone() for name, tensor in inputs.tensors().items()}
    with poisoned_heap() if compiled else poisoned_memory():
        result = call()
    return Answer(result, _output_of(result).clone(), before)


def check(backend: Backend, inputs: Inputs, known: Truth | None = None) -> Agreement:
    """Run ``backend`` on ``inputs`` and judge it.

    Beside the error: no NaN, every element written (fresh memory is poisoned with NaN), inputs left alone, and the
    same result twice. A plain-attention backend is judged against the oracle at λ = 0. ``known`` is the ``truth`` of
    these inputs (of their λ = 0 form for such a backend) where it has been worked out before.
    """
    inputs = inputs_for(backend, inputs)
    call = backend.prepare(inputs)
    answer = ask(call, inputs, backend.compiles)
    return verdict(inputs, answer, call(), known)


def inputs_for(backend: Backend, inputs: Inputs) -> Inputs:
    """``inputs`` as ``backend`` is judged on them: with λ = 0 where it doesn't steer."""
    return inputs if backend.steers else replace(inputs, strength=torch.zeros_like(inputs.strength))


def verdict(inputs: Inputs, answer: Answer, repeated: Any, known: Truth | None = None) -> Agreement:
    """Judge the first ``answer`` and, against it, a second call's result ``repeated``; ``known`` as in ``check``."""
    problem, output = inputs.problem, answer.output
    expected = (problem.batch, problem.query_heads, problem.query_length, problem.value_dim)
    if tuple(output.shape) != expected or output.dtype != inputs.query.dtype:
        return _failed(f"output: wanted {list(expected)} {inputs.query.dtype}; got {list(output.shape)} {output.dtype}")
    named = inputs.tensors().items()
    if changed := [name for name, tensor in named if not _is_same(tensor.detach(), answer.before[name])]:
        return _failed(f"changed its input {', '.join(changed)}")
    judged = judge(inputs, output, answer.result[1] if problem.return_stats else None, known)
    if judged.passed and not torch.equal(output, _output_of(repeated)):
        return replace(judged, passed=False, reason="gave another result the second time")
    return judged


def judge(inputs: Inputs, output: Tensor, stats: AttentionStats | None = None, known: Truth | None = None) -> Agreement:
    """``output`` [B, Hq, Lq, Dv] and, where given, ``stats`` against the oracle; ``known`` as in ``check``."""
    is_finite = output.isfinite()
    if not bool(is_finite.all()):
        reason = f"{int((~is_finite).sum())} of {output.numel()} output elements are not finite, or were never written"
        known = known or truth(inputs)
        return _failed(f"{reason}; {_where(inputs, output, known)}")

    known = known or truth(inputs)
    rows, exact, floor = known.rows, known.exact, known.floor
    if not bool(exact.output.isfinite().all() & floor.isfinite().all()):
        return _failed("the oracle's result, or eager's, isn't finite here: nothing can be judged by it")
    whole, output = output, output.index_select(2, rows.to(output.device)).double().cpu()
    error = relative_error(output, exact.output)
    slack = FLOAT32_SLACK if inputs.query.dtype == torch.float32 else 0.0
    ratio = float((error / floor).max())
    reason = ""
    if not bool((error <= FLOOR_FACTOR * floor + slack).all()):
        reason = f"error is {ratio:.1f} × the floor; at most {FLOOR_FACTOR:g}; {_where(inputs, whole, known)}"
    elif stats is not None:
        reason = _judge_stats(inputs, rows, stats, exact)
    return Agreement(float(error.max()), float(floor.max()), ratio, passed=not reason, reason=reason)


def _where(inputs: Inputs, output: Tensor, known: Truth) -> str:
    """The first wrong row, and why it is wrong where a usual cause fits."""
    slack = FLOAT32_SLACK if inputs.query.dtype == torch.float32 else 0.0
    return str(explain(inputs, output, known.rows, known.exact.output, FLOOR_FACTOR * known.floor + slack))


def relative_error(output: Tensor, exact: Tensor) -> Tensor:
    """‖output − exact‖ / ‖exact‖ per (batch, head), [B, H]; where exact is all zero, ‖output‖."""
    difference = (output - exact).flatten(2).norm(dim=-1)
    size = exact.flatten(2).norm(dim=-1)
    return difference / size.masked_fill(size == 0.0, 1.0)


def sample_rows(inputs: Inputs) -> Tensor:
    """Indices of the queries that are judged, int64: all of them, or evenly spaced ones of a large problem."""
    problem = inputs.problem
    count = max(
        1, min(problem.query_length, _MOST_SCORES // (problem.batch * problem.query_heads * problem.key_length))
    )
    return torch.linspace(0, problem.query_length - 1, count, dtype=torch.float64, device="cpu").round().long()


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Within it, memory that torch hands out uninitialised holds NaN, so that what is never written shows."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # torch fills fresh memory in its deterministic mode (torch.utils.deterministic.fill_uninitialized_memory). The
    # public switch also loads torch's compiler to tell it, which takes longer than the whole check.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._set_deterministic_algorithms(enabled, warn_only=warn_only)


@contextmanager
def poisoned_heap() -> Iterator[None]:
    """Within it, host memory fresh from glibc holds NaN of every dtype; elsewhere than on glibc, no effect.

    For compiled graphs: torch's own fill doesn't reach their buffers, and switching its mode compiles them anew. Blocks
    up to 1 KiB that glibc keeps for a thread escape it, and so does memory of a GPU.
    """
    # A library without mallopt is not glibc (musl, macOS).
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_PERTURB, _EVERY_BIT)
    try:
        yield
    finally:
        mallopt(_M_PERTURB, 0)


def gradients(backend: Backend, inputs: Inputs, output_gradient: Tensor) -> dict[str, Tensor]:
    """Gradients of query, key, value, bias and strength through ``backend`` for one ``output_gradient``, and where the
    problem asks for statistics for ones at each of them.
    """
    vector_math.settle()
    leaves = _leaves(inputs)
    result = backend.prepare(leaves)()
    output, stats = result if leaves.problem.return_stats else (result, ())
    torch.autograd.backward([output, *stats], [output_gradient, *map(torch.ones_like, stats)])
    return _collected(leaves)


def oracle_gradients(inputs: Inputs, output_gradient: Tensor) -> dict[str, Tensor]:
    """The same gradients through the float64 oracle."""
    leaves = _leaves(inputs)
    output, *stats = oracle(leaves)
    stats = stats if leaves.problem.return_stats else []
    torch.autograd.backward([output, *stats], [output_gradient.double().cpu(), *map(torch.ones_like, stats)])
    return _collected(leaves)


def _leaves(inputs: Inputs) -> Inputs:
    names = ("query", "key", "value", "bias", "strength")
    fresh = {name: getattr(inputs, name).detach().clone().requires_grad_() for name in names}
    return replace(inputs, problem=replace(inputs.problem, requires_grad=True), **fresh)


def _collected(leaves: Inputs) -> dict[str, Tensor]:
    named = {name: tensor.grad for name, tensor in leaves.tensors().items() if tensor.is_floating_point()}
    return {
        name: torch.zeros((), dtype=torch.float32, device="cpu") if grad is None else grad
        for name, grad in named.items()
    }


def _eager(inputs: Inputs, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Eager attention of the queries ``rows`` in the inputs' own dtype: output, Z, Z + λ b, and who is visible."""
    rows = rows.to(inputs.query.device)
    visible = inputs.visible()
    if visible is not None and visible.shape[2] > 1:
        visible = visible.index_select(2, rows)
    strength = inputs.strength if inputs.strength.shape[2] == 1 else inputs.strength.index_select(2, rows)
    part = inputs.query.index_select(2, rows)
    key, value = inputs.without_padding()
    output, scores, steered = eager_attention(
        part,
        key,
        value,
        replace(inputs, strength=strength).logit_bias(),
        visible,
        eps=inputs.problem.eps,
        scale=inputs.scale,
    )
    return output, scores, steered, visible


def _judge_stats(inputs: Inputs, rows: Tensor, stats: AttentionStats, exact: OracleResult) -> str:
    """The first statistic that is further off than twice eager's own error, or an empty string."""
    _, scores, steered, visible = _eager(inputs, rows)
    eager_stats = AttentionStats(*row_statistics(scores, steered, visible))
    if not all(bool(figure.isfinite().all()) for figure in eager_stats):
        _, scores, steered, visible = _eager(_in_float32(inputs), rows)
        eager_stats = AttentionStats(*row_statistics(scores, steered, visible))
    for name, found, by_eager in zip(stats._fields, stats, eager_stats, strict=True):
        wanted = getattr(exact, name)
        found = found.index_select(2, rows.to(found.device)).double().cpu()
        if found.shape != wanted.shape:
            return f"stats.{name}: wanted shape {list(wanted.shape)}; got {list(found.shape)}"
        allowed = FLOOR_FACTOR * (by_eager.double().cpu() - wanted).abs().amax() + STATS_SLACK * (1 + wanted.abs())
        if not bool(allowed.isfinite().all() & ((found - wanted).abs() <= allowed).all()):
            worst = float((found - wanted).abs().max())
            return f"stats.{name} is off by {worst:.2g}; at most {float(allowed.min()):.2g}"
    return ""


def _is_same(tensor: Tensor, before: Tensor) -> bool:
    """Whether every element is what it was; padding may hold NaN."""
    return torch.equal(tensor, before) or bool(((tensor == before) | (tensor.isnan() & before.isnan())).all())


def _output_of(result: Any) -> Tensor:
    output: Tensor = result if isinstance(result, Tensor) else result[0]
    return output.detach()


def _failed(reason: str) -> Agreement:
    return Agreement(error=None, floor=None, ratio=None, passed=False, reason=reason)
