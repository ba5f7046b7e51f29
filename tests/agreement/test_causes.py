"""A wrong output is told with its first wrong row and the usual cause that it fits; no cause fits by chance."""

from __future__ import annotations

from collections.abc import Iterator

import buggy_functions as bugs
import pytest
import torch

from rls_bench.agreement import judgement
from rls_bench.agreement.causes import explain
from rls_bench.agreement.conformance import CASES, EMPTY_ROW
from rls_bench.backends.function import Function
from rls_bench.problems.draw import draw
from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem
from rls_bench.referee import Referee
from rls_bench.referee.checking import check

SHAPE = "B2 H6/2 Lq47 Lk111 D32 λ=2"
# Each bug, what the problem needs beside to show it, and the words that name it.
PLANTED = {
    "dropped_bias": ("", "the bias is dropped"),
    "ignored_strength": ("", "λ is ignored"),
    "flipped_sign": ("", "λ's sign is flipped"),
    "one_key_too_many": ("causal", "one key too many (off by one)"),
    "one_key_too_few": ("causal", "hides one key too many"),
    "top_left": ("causal", "aligned top-left"),
    "no_causal_mask": ("causal", "the causal mask is left out"),
    "interleaved_heads": ("", "interleaved"),
    "tail_rows_unwritten": ("", "the tail rows 32 to 46 are never written"),
    "tail_keys_left_out": ("", "the tail keys are left out"),
    "base_two": ("", "the base is 2"),
    "missing_scale": ("", "the scale is missing"),
    "ignored_lengths": ("padded", "key_lengths are ignored"),
    "ignored_eps": ("eps=1e-2", "eps is ignored"),
    "swapped_values": ("", "keys and values are swapped"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products on a busy machine: threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_planted_bug_is_named(bug: str, dtype: str) -> None:
    words, cause = PLANTED[bug]
    inputs = draw(parse(f"{SHAPE} {dtype} {words}"))
    reason = judgement.check(Function(getattr(bugs, bug), bug), inputs).reason
    assert "; first wrong: batch 0, head " in reason
    assert cause in reason.split("; cause: ")[1].split(", or ")[0]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_another_order_of_sums_is_right(dtype: str) -> None:
    right = Function(bugs.other_order_of_sums, "right")
    assert judgement.check(right, draw(parse(f"B2 H6 Lq47 Lk111 D32 {dtype}"))).reason == ""


def test_what_fits_no_usual_cause_has_none() -> None:
    inputs = draw(parse(SHAPE))
    known = judgement.truth(inputs)
    noise = known.exact.output * (1 + 0.01 * torch.randn_like(known.exact.output))
    for output in (noise, torch.randn_like(noise), 2 * known.exact.output.flip(2)):
        wrong = explain(inputs, output, known.rows, known.exact.output, 2 * known.floor)
        assert wrong.causes == ()
        assert "cause" not in str(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("problem", [*CASES, EMPTY_ROW], ids=lambda problem: problem.name)
def test_noise_is_told_in_every_case_and_has_no_cause(problem: Problem) -> None:
    inputs = draw(problem)
    with torch.no_grad():
        known = judgement.truth(inputs)
        noise = torch.randn(known.exact.output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        wrong = explain(inputs, noise, known.rows, known.exact.output, 2 * known.floor)
    # One key alone has no weights to get wrong: what remains is the values, which noise isn't.
    assert wrong.causes == () or problem.key_length < problem.query_length
    assert "first wrong: batch " in str(wrong)


def test_a_form_in_which_nothing_is_seen_proves_nothing() -> None:
    """A query of one visible key, which is off: a mask that hides that key too leaves nothing to compare."""
    inputs = draw(parse("H1 L2 D8 causal"))
    known = judgement.truth(inputs)
    output = known.exact.output.clone()
    output[:, :, 0] += 1.0
    assert explain(inputs, output, known.rows, known.exact.output, 2 * known.floor).causes == ()


def test_the_first_wrong_row_and_its_size() -> None:
    inputs = draw(parse(SHAPE))
    known = judgement.truth(inputs)
    output = known.exact.output.clone()
    output[1, 4, 17] *= 1.5
    output[1, 5, 3] *= 1.5
    wrong = explain(inputs, output, known.rows, known.exact.output, 2 * known.floor)
    assert (wrong.batch, wrong.head, wrong.query) == (1, 4, 17)
    assert 0.1 < wrong.error <= 0.5


@pytest.mark.parametrize(
    ("blank", "words"),
    [
        ((slice(None), slice(None), slice(32, None)), "the tail rows 32 to 46 are never written"),
        ((slice(None), slice(4, 6)), "the heads 4 to 5 are never written"),
        ((slice(1, 2),), "the batches 1 to 1 are never written"),
        ((slice(None), slice(None), slice(None), slice(16, None)), "the value columns 16 to 31 are never written"),
        ((), "the whole output is never written"),
    ],
)
@pytest.mark.parametrize("held", [0.0, torch.nan])
def test_what_was_never_written_is_named(blank: tuple[slice, ...], words: str, held: float) -> None:
    inputs = draw(parse(SHAPE))
    known = judgement.truth(inputs)
    output = known.exact.output.clone()
    output[blank] = held
    (cause,) = explain(inputs, output, known.rows, known.exact.output, 2 * known.floor).causes
    assert words in cause


def test_lost_denominators_are_named() -> None:
    inputs = draw(parse(SHAPE))
    known = judgement.truth(inputs)
    output = known.exact.output * (1 + torch.rand(known.exact.output.shape[:3])[..., None])
    (cause,) = explain(inputs, output, known.rows, known.exact.output, 2 * known.floor).causes
    assert "not divided by their own sum" in cause


def test_nothing_is_worked_out_for_a_right_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(judgement, "explain", never)
    right = Function(bugs.other_order_of_sums, "right")
    assert judgement.check(right, draw(parse("H2 Lq7 Lk31 D16"))).passed
    with pytest.raises(AssertionError):
        judgement.check(Function(bugs.dropped_bias, "wrong"), draw(parse("H2 Lq7 Lk31 D16")))


@pytest.mark.slow
def test_the_referee_names_them_too_and_none_for_a_right_kernel() -> None:
    named = {}
    with Referee() as referee:
        for bug, (words, cause) in PLANTED.items():
            verdict = check(getattr(bugs, bug), parse(f"{SHAPE} {words}"), referee)
            assert verdict.status == "wrong"
            assert "first wrong: batch 0, head " in verdict.reason
            named[bug] = cause in verdict.reason.partition("; cause: ")[2].split(", or ")[0]
        right = check(bugs.other_order_of_sums, parse("B2 H6 Lq47 Lk111 D32"), referee)
    assert (right.status, right.reason) == ("ok", "")
    assert [bug for bug, is_named in named.items() if not is_named] == []
