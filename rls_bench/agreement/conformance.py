"""What every backend must get right, in some thirty small cases.

One suite for three users: our own tests, the pytest fixture ``steered_backend`` and ``rls-bench conformance``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from rls_bench.agreement import judgement
from rls_bench.backends.eager import BACKEND as _EAGER
from rls_bench.backends.interface import Backend, Support
from rls_bench.backends.words import told
from rls_bench.problems.draw import draw
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

# Gradients are held against the oracle's in float32: their norms may differ by this share. In half precision it is the
# dtype's own rounding, and twice what eager's differ by.
_GRADIENT_TOLERANCE = 2e-4
_PLAIN = Problem(2, 4, 4, 63, 63, 64, 64, inputs="random", name="plain")


def _case(name: str, **changes: Any) -> Problem:
    return replace(_PLAIN, name=name, **changes)


CASES = (
    _PLAIN,
    _case("bfloat16", dtype="bfloat16"),
    _case("float16", dtype="float16"),
    _case("real inputs", inputs="real"),
    _case("one past a tile", query_length=129, key_length=129),
    _case("a single key", query_length=7, key_length=1),
    _case("decode", query_length=1, key_length=111),
    _case("narrow heads", head_dim=16, value_dim=16),
    _case("wide heads", head_dim=256, value_dim=256),
    _case("values of another width", value_dim=40),
    _case("three queries a key head", query_heads=6, kv_heads=2),
    _case("one key head", kv_heads=1),
    _case("causal", is_causal=True),
    _case("causal over a cache", is_causal=True, query_length=7, key_length=111),
    _case("causal, queries without a key", is_causal=True, query_length=63, key_length=7),
    _case("padded", has_key_lengths=True),
    _case("causal and padded", is_causal=True, has_key_lengths=True),
    _case("bias for all batches", bias_layout="k"),
    _case("bias per head", bias_layout="bhk"),
    _case("strength per head", strength_layout="h"),
    _case("strength per batch and head", strength_layout="bh"),
    _case("strength per query", strength_layout="bhq"),
    _case("no strength", strength=0.0),
    _case("strength of -100", strength=-100.0),
    _case("strength of 100", strength=100.0),
    _case("strength of 100, half", strength=100.0, dtype="bfloat16"),
    _case("eps", eps=1e-3),
    _case("eps, causal and padded", eps=1e-3, is_causal=True, has_key_lengths=True),
    _case("statistics", return_stats=True),
    _case("gradients", requires_grad=True),
    _case("gradients of statistics", requires_grad=True, return_stats=True),
)
# A batch entry whose keys are all padding: not drawn by any suite, and easily forgotten.
EMPTY_ROW = _case("padded to nothing", has_key_lengths=True)
# The same, and what lies in padding is NaN, as fresh memory may be.
GARBAGE = _case("padding that holds NaN", has_key_lengths=True)
SIDE_BY_SIDE = _case("two calls side by side")


@dataclass(frozen=True)
class Outcome:
    """How one case went; ``reason`` is one line where it isn't ok."""

    case: str
    status: Literal["ok", "unsupported", "wrong", "failed"]
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether the backend conforms here: it is right, or it declined."""
        return self.status in ("ok", "unsupported")


def all_cases(device: str) -> list[Problem]:
    """The cases, on ``device``."""
    return [replace(problem, device=device) for problem in (*CASES, EMPTY_ROW, GARBAGE, SIDE_BY_SIDE)]


def check(
    backend: Backend,
    problems: Iterable[Problem] | None = None,
    checked: Callable[[Sequence[Problem]], Iterable[Outcome]] | None = None,
) -> Iterator[Outcome]:
    """The outcome of every problem, as it comes: first the interface, then the operator; on the CPU by default.

    What has not the interface is asked no more. A backend that declines all problems conforms to nothing: the last
    outcome says so. ``checked`` gives the outcomes where another process is to work them out; else ``check_case`` does.
    """
    interface = check_interface(backend)
    yield interface
    if not interface.holds:
        return
    asked = list(all_cases("cpu") if problems is None else problems)
    supported = 0
    for outcome in (check_case(backend, problem) for problem in asked) if checked is None else checked(asked):
        supported += outcome.status != "unsupported"
        yield outcome
    if not supported:
        yield Outcome("any case at all", "failed", "supports() declined every case")


def declines_all(backend: Backend, problems: Iterable[Problem]) -> str:
    """Why the backend can do none of ``problems``, or an empty string where it can do one."""
    refusals = [backend.supports(problem) for problem in problems]
    return "" if any(refusals) else refusals[0].reason


def check_interface(backend: Backend) -> Outcome:
    """Whether the backend is a Backend with a name and one-line answers."""
    case = "interface"
    if not isinstance(backend, Backend):
        return Outcome(case, "failed", f"wanted an instance of a Backend subclass; got {type(backend).__name__}")
    for field in ("name", "summary"):
        if not isinstance(value := getattr(backend, field, None), str) or not value or "\n" in value:
            return Outcome(case, "failed", f"{field}: wanted one line of text; got {value!r}")
    for question, ask in (("available", backend.available), ("measurable", backend.measurable)):
        try:
            complaint = _complaint(ask())
        except (Exception, SystemExit) as error:
            complaint = f"raised {told(error)}"
        if complaint:
            return Outcome(case, "failed", f"{question}(): {complaint}")
    return Outcome(case, "ok")


def check_case(backend: Backend, problem: Problem) -> Outcome:
    """Whether ``backend`` is right on one case, or declines it in one line; what it raises is its failure."""
    try:
        answer = backend.supports(problem)
        if complaint := _complaint(answer):
            return Outcome(problem.name, "failed", f"supports(): {complaint}")
        if not answer:
            return Outcome(problem.name, "unsupported", answer.reason)
        reason = _fault(backend, problem)
    except (Exception, SystemExit) as error:
        return Outcome(problem.name, "failed", told(error))
    return Outcome(problem.name, "wrong" if reason else "ok", reason)


def _complaint(answer: object) -> str:
    if not isinstance(answer, Support):
        return f"wanted a Support; got {answer!r}"
    if not answer and (not answer.reason or "\n" in answer.reason):
        return f"wanted the reason in one line; got {answer.reason!r}"
    return ""


def _fault(backend: Backend, problem: Problem) -> str:
    """What is wrong with the backend on ``problem``, or an empty string."""
    inputs = draw(problem)
    if problem.name == SIDE_BY_SIDE.name:
        others = draw(replace(problem, seed=problem.seed + 1))
        return _mixes_up_calls(backend, inputs, others) or _mixes_up_layers(backend, inputs, others)
    if problem.name == EMPTY_ROW.name:
        assert inputs.key_lengths is not None
        lengths = inputs.key_lengths.clone()
        lengths[0] = 0
        inputs = replace(inputs, key_lengths=lengths)
    if problem.name == GARBAGE.name:
        assert inputs.key_lengths is not None
        padding = torch.arange(problem.key_length, device=inputs.key.device) >= inputs.key_lengths[:, None]
        for operand in (inputs.key, inputs.value):
            operand.masked_fill_(padding[:, None, :, None], torch.nan)
    with torch.no_grad():
        verdict = judgement.check(backend, inputs)
    if not verdict.passed:
        return verdict.reason
    return wrong_gradient(backend, inputs) if problem.requires_grad else ""


def _mixes_up_calls(backend: Backend, inputs: Inputs, others: Inputs) -> str:
    """Prepared calls must not share what they computed: a server holds many of them at once."""
    calls = [(backend.prepare(each), each) for each in (inputs, others)]
    for call, _ in calls:
        call()
    for call, its_own in calls:
        judged = its_own if backend.steers else replace(its_own, strength=torch.zeros_like(its_own.strength))
        if not judgement.judge(judged, call()).passed:
            return "a prepared call gave another result once a second one was prepared"
    return ""


def _mixes_up_layers(backend: Backend, inputs: Inputs, others: Inputs) -> str:
    """One launch serves all layers of a model, each with operands of its own."""
    launch = backend.launch(inputs)
    steering = launch.steer(inputs.bias, inputs.strength, launch.see(inputs.key_lengths))
    for layer in (inputs, others, inputs):
        operands = (layer.query, layer.key, layer.value)
        strength = inputs.strength if backend.steers else torch.zeros_like(inputs.strength)
        judged = replace(inputs.with_operands(*operands), strength=strength)
        if not judgement.judge(judged, launch.run(*operands, steering)).passed:
            return "a launch for layers gave another result than a call prepared for the layer alone"
    return ""


def wrong_gradient(backend: Backend, inputs: Inputs) -> str:
    """What is wrong with the backend's gradients on ``inputs``, or an empty string."""
    if not backend.steers:
        inputs = replace(inputs, strength=torch.zeros_like(inputs.strength))
    problem = inputs.problem
    generator = torch.Generator().manual_seed(0)
    shape = (problem.batch, problem.query_heads, problem.query_length, problem.value_dim)
    output_gradient = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(inputs.query.device)
    found = judgement.gradients(backend, inputs, output_gradient)
    wanted = judgement.oracle_gradients(inputs, output_gradient)
    eager = wanted if problem.dtype == "float32" else judgement.gradients(_EAGER, inputs, output_gradient)
    share = _GRADIENT_TOLERANCE if problem.dtype == "float32" else torch.finfo(inputs.query.dtype).eps
    # Plain attention has no gradient to give for what it ignores.
    operands = wanted if backend.steers else ("query", "key", "value")
    for operand in operands:
        if found[operand].shape != wanted[operand].shape:
            return f"gradient of {operand}: there is none"
        exact = wanted[operand].double().cpu()
        error, by_eager = ((each[operand].double().cpu() - exact).norm() for each in (found, eager))
        allowed = 2 * by_eager + share * exact.norm().clamp_min(1e-3)
        if not (allowed.isfinite() and error <= allowed):
            return f"gradient of {operand} is off by {float(error):.2g}"
    return ""
