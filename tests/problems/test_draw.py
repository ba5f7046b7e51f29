"""Lengths of padded batches: what a problem's words say of them is what is drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from rls_bench.problems import served
from rls_bench.problems.draw import draw
from rls_bench.problems.grammar import parse

# What this problem drew before lengths could be served: its records must go on meaning the same work.
PLAIN = [3936, 3361, 2557, 3189]


def lengths(count: int, longest: int, seed: int = 0) -> torch.Tensor:
    return served.key_lengths(count, longest, torch.Generator().manual_seed(seed))


def test_the_table_is_a_distribution() -> None:
    table = served._table()
    shares, keys = table["shares"], table["keys"]
    assert len(shares) == len(keys)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert all(one < other for values in (shares, keys) for one, other in pairwise(values))
    assert table["source"]
    assert table["licence"] == "CC-BY 4.0"


def test_quantiles_drawn_are_those_of_the_trace() -> None:
    table, drawn = served._table(), lengths(20_000, 1 << 20).double()
    # Four standard deviations of a share of so many draws.
    found = [(drawn <= keys).double().mean().item() for keys in table["keys"]]
    np.testing.assert_allclose(found[1:], table["shares"][1:], atol=0.015)


@pytest.mark.parametrize("longest", [1, 2, 3, 64, 1024, 4096, 14_088, 100_000])
def test_lengths_fit_and_are_those_that_fit(longest: int) -> None:
    drawn = lengths(2000, longest)
    assert drawn.min() >= 1
    assert drawn.max() <= longest
    # As the trace's that fit: none is cut to the cache's size, so few have just that.
    assert longest < 64 or (drawn == longest).double().mean() < 0.05
    whole = lengths(20_000, 1 << 20)
    fitting = whole[whole <= longest].double()
    if len(fitting) > 1000:
        np.testing.assert_allclose(drawn.double().quantile(0.5), fitting.quantile(0.5), rtol=0.1)


def test_a_problem_draws_the_same_lengths_every_time_and_others_by_seed() -> None:
    words = "B64 H2/1 Lq1 Lk4096 D8 padded served"
    first, again, other = (draw(parse(one)).key_lengths for one in (words, words, f"{words} seed=1"))
    assert first is not None
    assert other is not None
    assert first.dtype == torch.int32
    assert torch.equal(first, again)  # type: ignore[arg-type]
    assert not torch.equal(first, other)
    # A trace's batch is far shorter than its cache: half of it or more only by chance.
    assert (first < 2048).double().mean() > 0.8


def test_lengths_that_are_not_served_stay_what_they_were() -> None:
    plain = draw(parse("B64 H2/1 Lq1 Lk4096 D8 padded")).key_lengths
    assert plain is not None
    assert plain.min() >= 2048
    assert plain[:4].tolist() == PLAIN


def test_what_is_drawn_is_another_problem() -> None:
    real, with_lengths = (parse(f"B8 H2 Lq1 Lk64 D8 padded{word}") for word in ("", " served"))
    assert real.key != with_lengths.key
    assert real.key.split("inputs=")[0] == with_lengths.key.split("inputs=")[0]
    # Tensors are real ones, and without lengths nothing else is drawn.
    one, other = (draw(parse(f"H2 L16 D8{word}")) for word in ("", " served"))
    assert all(torch.equal(one.tensors()[name], tensor) for name, tensor in other.tensors().items())
