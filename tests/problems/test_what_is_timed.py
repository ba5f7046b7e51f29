"""Which options of the operator no suite times: a list that may only grow shorter."""

from __future__ import annotations

import re

from rls_bench.problems import grammar, suites
from rls_bench.problems.grammar import parse

# The runner times the forward pass alone; the others wait for a suite.
NOT_TIMED = {"grad", "fp16", "b[k]", "b[bhk]", "λ[bh]"}


def options(words: str) -> set[str]:
    """The words of a problem that are neither sizes nor say how tensors are drawn."""
    problem = parse(words)
    found = {word.split("=")[0] for word in problem.title.split() if not re.fullmatch(r"(B|H|D|L[qk]?)\d.*", word)}
    return found | ({"batched decode"} if problem.batch > 1 and problem.regime == "decode" else set())


def test_every_option_is_timed_or_listed() -> None:
    every = {word for word in grammar._SPELLED if word.startswith(("λ[", "b["))} - {"b[bk]"}
    every |= {"causal", "padded", "stats", "grad", "eps", "fp32", "bf16", "fp16", "batched decode"}
    timed = {option for name in suites.names() for one in suites.get(name) for option in options(one.title)}
    assert every - timed == NOT_TIMED


def test_an_option_that_no_suite_has_is_found() -> None:
    assert options("B2 H4/2 Lq1 Lk64 D64 fp16 padded eps=1e-3 λ[bh] b[k] grad stats") == {
        *("fp16", "padded", "eps", "λ[bh]", "b[k]", "grad", "stats", "batched decode")
    }
