"""Backends on torch's kernels: pinned without a switch, whatever the strides, blind to padding."""

from __future__ import annotations

import math
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from rls_bench import steered_attention
from rls_bench.agreement import judgement
from rls_bench.backends import flex, registry
from rls_bench.errors import BackendUnsupported
from rls_bench.problems.binding import bind
from rls_bench.problems.problem import Problem

ON_CPU = ("eager", "sdpa-math", "sdpa-cpu", "keyfold", "valuefold", "unsteered", "cpu")


def operands(length: int = 65, width: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, length, width, generator=generator) for _ in range(3)]


def error(name: str, arguments: tuple[Tensor, ...], **options: object) -> float:
    inputs = bind(*arguments, 0.0 if name == "unsteered" else 1.0, **options)  # type: ignore[arg-type]
    output = registry.get(name).prepare(inputs)()
    return float((output.double() - judgement.oracle(inputs).output).abs().max())


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_last_axis_may_lie_anyhow(name: str, which: int) -> None:
    for lay_out in (
        lambda t: t.mT.contiguous().mT,
        lambda t: torch.stack((t, torch.full_like(t, math.nan)), -1).flatten(-2)[..., ::2],
        lambda t: t[..., :1].expand(t.shape),
    ):
        given = operands()
        given[which] = lay_out(given[which])
        bias = torch.randn(130, generator=torch.Generator().manual_seed(1))[::2]
        # Values go up to 4, logits to 13.
        assert error(name, (*given, bias)) < 5e-6


def test_switches_of_the_process_stay_as_they_are_while_threads_call() -> None:
    def switches() -> list[bool]:
        return [getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "math", "mem_efficient")]

    before, seen = switches(), set()
    query, key, value = operands(32, 16)
    bias = torch.randn(32)

    def call(name: str) -> None:
        for _ in range(20):
            steered_attention(query, key, value, bias, backend=name)
            seen.add(tuple(switches()))

    threads = [threading.Thread(target=call, args=(name,)) for name in ("keyfold", "sdpa-math", "valuefold", "keyfold")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {tuple(before)}
    assert switches() == before
    # The user's own call, which only the math kernel can do.
    F.scaled_dot_product_attention(query, key, value, attn_mask=torch.zeros(32, 32, requires_grad=True))


@pytest.mark.parametrize("garbage", [1e4, math.inf, math.nan])
@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "keyfold"])
def test_padding_is_never_seen(name: str, garbage: float) -> None:
    lengths = torch.tensor([17])
    for is_causal in (False, True):
        given = operands(48, 32)
        for operand in given[1:]:
            operand[:, :, 17:] = garbage
        if name == "valuefold" and is_causal:
            continue
        options = {"key_lengths": lengths, "is_causal": is_causal}
        assert error(name, (given[0][:, :, :9], *given[1:], torch.randn(48)), **options) < 2e-6


def test_gradients_pass_padding() -> None:
    lengths = torch.tensor([17])
    given = operands(48, 32)
    inputs = bind(*given, torch.randn(48), 1.0, key_lengths=lengths, return_stats=True)
    wanted = judgement.oracle_gradients(inputs, torch.ones(1, 2, 48, 32))
    for operand in given[1:]:
        operand[:, :, 17:] = math.nan
    for name in ("eager", "cpu"):
        found = judgement.gradients(registry.get(name), inputs, torch.ones(1, 2, 48, 32))
        for operand in ("query", "key", "value", "bias", "strength"):
            assert float((found[operand] - wanted[operand]).abs().max()) < 1e-3, (name, operand)


@pytest.mark.parametrize("options", [{}, {"is_causal": True, "key_lengths": torch.tensor([0])}])
def test_statistics_in_a_loss_have_one_gradient(options: dict[str, object]) -> None:
    found = {}
    for name in ("eager", "cpu", "auto"):
        query, key, value = operands(20, 16)
        leaves = [query[:, :, :15].clone(), key[:, :1].clone(), torch.randn(2, 20, generator=torch.Generator())[None]]
        strength = torch.tensor([0.5, 2.0])
        for leaf in (*leaves, strength):
            leaf.requires_grad_()
        output, stats = steered_attention(
            leaves[0], leaves[1], value[:, :1], leaves[2], strength, return_stats=True, enable_gqa=True, backend=name,
            **options,  # type: ignore[arg-type]
        )  # fmt: skip
        (output.sum() + 10 * stats.kl.sum() + stats.entropy_steered.sum() + stats.lse.square().sum()).backward()
        found[name] = [leaf.grad for leaf in (*leaves, strength)]
    for one in ("cpu", "auto"):
        for mine, eagers in zip(found[one], found["eager"], strict=True):
            assert mine is not None
            assert eagers is not None
            assert torch.allclose(mine, eagers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cpu", "auto", "sdpa-cpu", "keyfold", "valuefold", "sdpa-math", "eager"])
def test_a_tangent_is_carried_or_refused(name: str) -> None:
    query, key, value = operands(20, 16)
    bias = torch.randn(20)

    def call(bias: Tensor) -> Tensor:
        return steered_attention(query, key, value, bias, 1.5, backend=name, check_values=False)

    if name in ("sdpa-math", "eager"):
        assert float(torch.func.jvp(call, (bias,), (bias,))[1].norm()) > 0
        return
    with pytest.raises((BackendUnsupported, NotImplementedError)):
        torch.func.jvp(call, (bias,), (bias,))
    with pytest.raises((BackendUnsupported, NotImplementedError)), forward_ad.dual_level():
        call(forward_ad.make_dual(bias, bias))


@pytest.mark.parametrize(
    ("capability", "head_dim", "keys", "is_right"),
    [
        ("AVX2", 16, 40, False),
        ("AVX2", 8, 1000, False),
        ("AVX2", 16, 48, True),
        ("AVX2", 16, 41, True),
        ("AVX2", 24, 40, True),
        ("AVX512", 16, 40, True),
        ("DEFAULT", 12, 20, False),
    ],
)
def test_flex_refuses_where_torch_reads_past_the_keys(
    monkeypatch: pytest.MonkeyPatch, capability: str, head_dim: int, keys: int, is_right: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for queries in (1, 20):
        problem = Problem(1, 2, 2, queries, keys, head_dim, head_dim, dtype="bfloat16")
        answer = flex.BACKEND.supports(problem)
        assert bool(answer) == is_right
        assert is_right or "reads and writes past the keys' end" in answer.reason


def test_a_weight_of_value_folding_is_rounded_once_where_one_key_holds_a_row() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.ones(256, 1, 1, 16), torch.zeros(256, 1, 2, 16)
    # A logit of 16: the second key has all of the plain weight, and the first the saliency.
    key[:, :, 1] = 4.0
    value = torch.randn(256, 1, 2, 128, generator=generator)
    query, key, value = (tensor.bfloat16() for tensor in (query, key, value))
    bias = torch.zeros(256, 1, 2)
    bias[:, 0, 0] = torch.linspace(0.0, 1.4, 256)
    inputs = bind(query, key, value, bias, 1.0)
    exact = judgement.oracle(inputs).output
    roundoff = torch.finfo(torch.bfloat16).eps / 2
    # The weight rounded in one sum and not in the other came to 1.4.
    assert float(judgement.relative_error(registry.get("valuefold").prepare(inputs)().double(), exact).max()) < roundoff
