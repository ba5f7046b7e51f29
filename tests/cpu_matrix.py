"""The problems that the CPU kernel is checked on, odd sizes, every option, every layout, and their truths.

Each instruction set answers the same problems, so what they are held to is worked out once.
"""

from collections.abc import Iterable
from functools import cache
from itertools import product

from rls_bench import agreement
from rls_bench.backends.cpu import BACKEND
from rls_bench.problems.draw import draw
from rls_bench.problems.problem import Problem

# (batch, query heads, kv heads, Lq, Lk, D, Dv): one key, tails of every tile, grouped heads, short queries (decode).
SHAPES = (
    (1, 1, 1, 1, 1, 1, 1),
    (2, 4, 2, 33, 65, 24, 40),
    (1, 2, 1, 100, 70, 64, 64),
    (2, 2, 2, 49, 257, 128, 128),
    (1, 1, 1, 17, 129, 256, 256),
    (2, 4, 1, 50, 50, 7, 5),
    (2, 8, 2, 1, 1500, 64, 64),
    (1, 4, 4, 3, 700, 72, 40),
    (1, 12, 3, 2, 33, 256, 20),
)
DTYPES = ("float32", "bfloat16", "float16")
# (bias layout, strength layout, strength): 100 spans more than one pass can hold.
STEERINGS = (("bk", "scalar", 3.0), ("bhk", "h", 2.0), ("k", "bhq", 2.0), ("bk", "scalar", 100.0))


def problem(shape: tuple[int, ...], dtype: str, steering: tuple[str, str, float], **options: object) -> Problem:
    """One cell; inputs are random, drawn by a seed that follows from the cell."""
    bias_layout, strength_layout, strength = steering
    batch, query_heads, kv_heads, query_length, key_length, head_dim, value_dim = shape
    return Problem(
        batch,
        query_heads,
        kv_heads,
        query_length,
        key_length,
        head_dim,
        value_dim,
        dtype,  # type: ignore[arg-type]
        bias_layout=bias_layout,  # type: ignore[arg-type]
        strength_layout=strength_layout,  # type: ignore[arg-type]
        strength=strength,
        inputs="random",
        **options,  # type: ignore[arg-type]
    )


def cells(shape: tuple[int, ...], dtype: str) -> list[Problem]:
    """Every mask, eps, statistic and steering of one shape and dtype."""
    options = product((False, True), (False, True), (0.0, 1e-3), (False, True), STEERINGS)
    return [
        problem(shape, dtype, steering, is_causal=causal, has_key_lengths=padded, eps=eps, return_stats=stats)
        for causal, padded, eps, stats, steering in options
    ]


def failures(problems: Iterable[Problem]) -> list[str]:
    """Those of ``problems`` that the kernel gets wrong, each with the reason."""
    checked = ((problem, agreement.check(BACKEND, draw(problem), truth(problem))) for problem in problems)
    return [f"{problem.key}: {verdict.reason}" for problem, verdict in checked if not verdict.passed]


@cache
def truth(problem: Problem) -> agreement.Truth:
    return agreement.truth(draw(problem))
