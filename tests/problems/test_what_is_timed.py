"""Every option of the operator is timed in some suite."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rls_bench.problems import grammar, suites
from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem

EVERY = {word for word in grammar._SPELLED if word.startswith(("λ[", "b["))} - {"b[bk]"}
EVERY |= {"causal", "padded", "stats", "grad", "eps", "fp32", "bf16", "fp16", "batched decode"}


def options(problem: Problem) -> set[str]:
    """The words of a problem that are neither sizes nor say how tensors are drawn."""
    found = {word.split("=")[0] for word in problem.title.split() if not re.fullmatch(r"(B|H|D|L[qk]?)\d.*", word)}
    return found | ({"batched decode"} if problem.batch > 1 and problem.regime == "decode" else set())


def not_timed(problems: Iterable[Problem]) -> set[str]:
    """The options that none of ``problems`` has."""
    return EVERY - {option for problem in problems for option in options(problem)}


def test_every_option_is_timed() -> None:
    assert not not_timed(problem for name in suites.names() for problem in suites.get(name))


def test_an_option_that_no_suite_has_is_found() -> None:
    assert not_timed([parse("B2 H4/2 Lq1 Lk64 D64 fp16 padded eps=1e-3 λ[bh] b[k] grad stats")]) == {
        *("causal", "fp32", "bf16", "λ[h]", "λ[bhq]", "b[bhk]")
    }
    assert "grad" in not_timed(problem for name in {*suites.names()} - {"training"} for problem in suites.get(name))
