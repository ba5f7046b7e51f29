"""What a table prints can be typed again and is the same problem; what isn't understood is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rls_bench.errors import ProblemError
from rls_bench.problems import suites
from rls_bench.problems.grammar import parse
from rls_bench.problems.problem import Problem


def finite(least: float | None = None) -> st.SearchStrategy[float]:
    return st.floats(least, allow_nan=False, allow_infinity=False)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    sizes = st.integers(1, 1 << 20)
    kv_heads = draw(st.integers(1, 64))
    return Problem(
        batch=draw(sizes),
        query_heads=kv_heads * draw(st.integers(1, 16)),
        kv_heads=kv_heads,
        query_length=draw(sizes),
        key_length=draw(sizes),
        head_dim=draw(sizes),
        value_dim=draw(sizes),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
        is_causal=draw(st.booleans()),
        has_key_lengths=draw(st.booleans()),
        bias_layout=draw(st.sampled_from(["k", "bk", "bhk"])),
        strength_layout=draw(st.sampled_from(["scalar", "h", "bh", "bhq"])),
        eps=draw(finite(0.0)),
        return_stats=draw(st.booleans()),
        requires_grad=draw(st.booleans()),
        strength=draw(finite()),
        inputs=draw(st.sampled_from(["real", "random", "served"])),
        seed=draw(st.integers(0, 1 << 31)),
    )


@settings(max_examples=1000, deadline=None)
@given(problems())
def test_a_title_means_the_problem_that_it_was_made_of(problem: Problem) -> None:
    assert parse(problem.title) == problem


def test_every_title_of_every_suite_is_understood() -> None:
    for name in suites.names():
        for problem in suites.get(name):
            assert parse(problem.title) == replace(problem, name="")
            assert parse(f"{problem.name}: {problem.title}") == problem


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("D128 bf16 Lk4096 Lq1 H32/8 B8", {"batch": 8, "kv_heads": 8, "key_length": 4096, "dtype": "bfloat16"}),
        ("H4 L63 D64", {"batch": 1, "kv_heads": 4, "query_length": 63, "value_dim": 64, "dtype": "float32"}),
        ("H4 L63 D64/32 float16 eps=1e-3", {"value_dim": 32, "dtype": "float16", "eps": 1e-3}),
        (
            "H4 L63 D64 strength=2.5 strength[bh] bias[k]",
            {"strength": 2.5, "strength_layout": "bh", "bias_layout": "k"},
        ),
        ("H4 L63 D64 stats grad causal padded", {"return_stats": True, "requires_grad": True, "is_causal": True}),
    ],
)
def test_words_in_any_order_and_spelling(text: str, fields: dict[str, object]) -> None:
    problem = parse(text)
    assert {name: getattr(problem, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("H32 L1024 D128 b16", r"'b16' is no word for a problem; the nearest is 'bf16'"),
        ("H32 L1024 D128 casual", r"'casual' .* the nearest is 'causal'"),
        ("H32 K4096 D128", r"'K4096' .* the nearest is 'Lk4096'"),
        ("H32 L1024 D128 lambda[h]", r"'lambda\[h\]' .* the nearest is"),
        ("H32 L1024 D128 D64", r"'D64' sets head_dim, value_dim a second time"),
        ("H32 L1024 Lq1 D128", r"'Lq1' sets query_length a second time"),
        ("L1024 D128", r"wanted H32/8; got no word for query_heads"),
        ("H32 Lq1 D128", r"got no word for key_length"),
        ("", r"got no word for query_heads"),
        ("H32/5 L1024 D128", r"wanted key-value heads that divide 32 query heads; got 5"),
        ("H32 L0 D128", r"query_length: wanted 1 or more; got 0"),
        ("H32 L8 D128 eps=-1", r"eps: wanted a number >= 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        parse(text)
