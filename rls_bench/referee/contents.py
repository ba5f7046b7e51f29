"""What a call's inputs hold, and how they change from call to call in the same memory.

Two draws of the queries and of the saliency lie ready, and of the strength where it is a tensor. The queries' rows fall
into some two hundred units, and each unit holds the one draw's rows or the other's; the saliency is wholly the one or
the other, and the strength with it. Before each call one unit changes sides, so that hardly two calls ever see the same
inputs, and yet the right answer to any of them is known: a row of attention depends on its own query alone, so the
answer is put together from those to the four pairs of draws. Keys and values stay as they are, for a backend may pack
them once. Where it is prepared on another set of inputs, that set's queries, keys and values are the negatives: all
else is to the last bit the same, and the answer the negative, so that what was packed for the first set shows.
"""

from __future__ import annotations

import random

import msgspec

from rls_bench.problems.problem import Problem

_MOST_UNITS = 256


class Contents(msgspec.Struct, frozen=True):
    """The inputs of one call: which draw the saliency is (0 or 1), and the ``seed`` by which the units of the queries
    are dealt and change sides, ``steps`` times since; ``negated``: queries, keys and values are the negatives."""

    seed: str
    bias: int
    steps: int = 0
    negated: bool = False

    def of(self, which: int, steps: int = 0) -> Contents:
        """The contents of the inputs numbered ``which``, where distinct ones are renewed together."""
        return Contents(f"{self.seed} {which}", self.bias, steps, negated=which % 2 == 1)


class Units(msgspec.Struct, frozen=True):
    """The queries' rows [batch · query_heads · query_length] in ``count`` units of ``rows`` rows; the last may be
    shorter."""

    count: int
    rows: int

    @staticmethod
    def of(problem: Problem) -> Units:
        """The units of the queries of ``problem``."""
        total = problem.batch * problem.query_heads * problem.query_length
        rows = -(-total // _MOST_UNITS)
        return Units(-(-total // rows), rows)


class Mix:
    """Which draw each unit of the queries holds, call after call."""

    def __init__(self, seed: str, units: int) -> None:
        self._random = random.Random(seed)
        self.sides = bytearray(self._random.getrandbits(1) for _ in range(units))
        self.steps = 0

    @staticmethod
    def at(contents: Contents, units: int) -> Mix:
        """The mix that ``contents`` describe."""
        mix = Mix(contents.seed, units)
        for _ in range(contents.steps):
            mix.step()
        return mix

    def step(self) -> int:
        """Change the side of one unit; which one."""
        unit = int(self._random.random() * len(self.sides))
        self.sides[unit] ^= 1
        self.steps += 1
        return unit
