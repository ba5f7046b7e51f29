"""What the rules of a policy say of a problem that nobody measured: each backend's cost, drawn between its neighbours.

Sizes and costs count by their logarithms. A problem lies between measured ones where it is a weighted mean of them,
that is, inside their convex hull: a box about them would hold problems that are far from all. Of all such weights those
with the nearest points are taken, the corners of the Delaunay simplex that holds the problem; along the lengths
alone a curve through all of them is drawn.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import pairwise

import numpy as np

from rls_bench.policy.file import Point, Rule

# A difference in cost up to this is none: the choice of the nearest measured problem stays.
TIE = 0.005
# Lengths asked of the rules between two that were measured, to see where the answer changes.
_STEPS = 8
# A weight this close to 1 is the measured problem itself.
_EXACT = 1 - 1e-6


@dataclass(frozen=True)
class Advice:
    """Backends in order of preference, and why; none where the evidence is too thin."""

    backends: tuple[str, ...]
    why: str


# A rule, the place of a measured problem in it, and its weight.
_Corner = tuple[Rule, int, float]


@dataclass(frozen=True)
class Stretches:
    """Advice for one shape class by key length: ``advice[i]`` serves up to ``ends[i]``, None outside what is known."""

    ends: tuple[int, ...]
    advice: tuple[Advice | None, ...]

    def at(self, key_length: int) -> Advice | None:
        """What serves ``key_length``; None where it lies outside what was measured."""
        place = bisect_left(self.ends, key_length)
        return self.advice[place] if place < len(self.advice) else None


def stretches(rules: Sequence[Rule], asked: Point, *, is_square: bool) -> Stretches:
    """The advice of ``rules``, all of one kind, for the sizes of ``asked`` over every key length.

    ``is_square``: the query is as long as the keys, whatever their length.
    """

    def at(length: int) -> Advice | None:
        query = length if is_square else asked.query_length
        return advise(rules, replace(asked, key_length=length, query_length=query))

    measured = sorted({point.key_length for rule in rules for point in rule.measured})
    steps = [step / _STEPS for step in range(_STEPS)]
    lengths = {round(below * (above / below) ** step) for below, above in pairwise(measured) for step in steps}
    found = [(length, at(length)) for length in sorted({*lengths, *measured})]
    if not found:
        return Stretches((), ())
    ends: list[int] = [found[0][0] - 1]
    advice: list[Advice | None] = [None]
    for (below, one), (above, other) in pairwise(found):
        if one != other:
            ends.append(_last(below, above, one, at))
            advice.append(one)
    return Stretches((*ends, found[-1][0]), (*advice, found[-1][1]))


def _last(below: int, above: int, one: Advice | None, at: Callable[[int], Advice | None]) -> int:
    """The greatest length from ``below`` to ``above`` whose advice is still ``one``, where it changes once."""
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if at(middle) == one else (below, middle)
    return below


def advise(rules: Sequence[Rule], asked: Point) -> Advice | None:
    """What ``rules`` say of ``asked``; None where it isn't between measured problems."""
    places = [(rule, index) for rule in rules for index in range(len(rule.measured))]
    weights = weigh([rule.measured[index] for rule, index in places], asked)
    if weights is None:
        return None
    corners = [(*places[place], weight) for place, weight in weights.items()]
    nearest = max(corners, key=lambda corner: corner[2])
    if nearest[2] > _EXACT:
        return Advice(nearest[0].backends, nearest[0].why)
    between = f"not measured, between {_between([rule.measured[index] for rule, index, _ in corners])}"
    for rule, _, _ in corners:
        if not rule.backends:
            return Advice((), f"{between}: {rule.why}")
    return _drawn(rules, asked, corners, nearest[0], between)


def _drawn(rules: Sequence[Rule], asked: Point, corners: Sequence[_Corner], nearest: Rule, between: str) -> Advice:
    """The order of the costs drawn between the corners, for backends that were measured at each."""
    costs: dict[str, float] = {}
    line = _line(rules, asked, [rule.measured[index] for rule, index, _ in corners])
    for name in dict.fromkeys(name for rule, _, _ in corners for name in rule.backends):
        known = [(rule.cost(name, index), weight) for rule, index, weight in corners]
        if all(cost for cost, _ in known):
            straight = math.fsum(weight * math.log(cost) for cost, weight in known if cost)
            costs[name] = _curved(line, name, asked) if line else straight
    if not costs:
        why = f"{between}, no backend was measured at each; the nearest takes {nearest.backends[0]}"
        return Advice(nearest.backends, why)
    least = min(costs.values())
    usual = nearest.backends[0]
    stays = usual in costs and costs[usual] - least <= math.log1p(TIE)
    order = tuple(sorted(costs, key=lambda name: (not (stays and name == usual), costs[name])))
    return Advice(order, f"{between}: {order[0]} has the least cost between them")


def _line(rules: Sequence[Rule], asked: Point, corners: Sequence[Point]) -> list[tuple[int, Rule, int]]:
    """Length, rule and place of all measured on the line of lengths through the corners; none off such a line."""
    is_square = asked.query_length == asked.key_length

    def others(point: Point) -> Point:
        query = 0 if is_square and point.query_length == point.key_length else point.query_length
        return replace(point, key_length=0, query_length=query)

    if any(others(point) != others(asked) for point in corners):
        return []
    places = [(point.key_length, rule, index) for rule in rules for index, point in enumerate(rule.measured)]
    found = {
        length: (length, rule, index) for length, rule, index in places if others(rule.measured[index]) == others(asked)
    }
    return [found[length] for length in sorted(found)]


def _curved(line: Sequence[tuple[int, Rule, int]], name: str, asked: Point) -> float:
    """The log cost along a line of lengths: monotone between neighbours, and bent as those beyond them say.

    Fritsch and Carlson, Monotone piecewise cubic interpolation, 1980: a cost of a + b L + c L² is a curve even on the
    scale of logarithms, and straight lines between lengths a factor of four apart miss it by up to a tenth.
    """
    from scipy.interpolate import PchipInterpolator

    known = [(length, cost) for length, rule, index in line if (cost := rule.cost(name, index))]
    lengths, costs = np.log(np.array(known)).T
    return float(PchipInterpolator(lengths, costs)(math.log(asked.key_length)))


def weigh(points: Sequence[Point], asked: Point) -> dict[int, float] | None:
    """Weights of the nearest of ``points`` whose mean is ``asked``, by place; None outside their convex hull.

    Of all weights w >= 0 with sum 1 and mean x, those with the least sum of w |x_i - x|^2 belong to the Delaunay
    simplex about x (Rajan, Optimality of the Delaunay triangulation in R^d, 1994).
    """
    # The first call of a shape class pays for this import, and a server that has no policy never does.
    from scipy.optimize import linprog

    if not points:
        return None
    offsets = np.log([astuple(point) for point in points]) - np.log(astuple(asked))
    offsets[np.abs(offsets) < 1e-12] = 0.0
    # Far outside is soon seen.
    if (offsets.min(axis=0) > 0).any() or (offsets.max(axis=0) < 0).any():
        return None
    solved = linprog(
        (offsets**2).sum(axis=1),
        A_eq=np.vstack([np.ones(len(points)), offsets.T]),
        b_eq=np.array([1.0, *[0.0] * offsets.shape[1]]),
        method="highs",
    )
    if not solved.success:
        return None
    return {place: float(weight) for place, weight in enumerate(solved.x) if weight > 1e-6}


def _between(points: Sequence[Point]) -> str:
    """``key lengths 512 and 2048``, or all sizes that differ."""
    differ = [field.name for field in fields(Point) if len({getattr(point, field.name) for point in points}) > 1]
    if set(differ) <= {"query_length", "key_length"}:
        return "key lengths " + " and ".join(str(length) for length in sorted({point.key_length for point in points}))
    words = [" ".join(f"{name.replace('_', ' ')} {getattr(point, name)}" for name in differ) for point in points]
    return " and ".join(words)
