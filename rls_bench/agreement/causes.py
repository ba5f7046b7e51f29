"""Why a wrong output is wrong: it is held against the float64 oracle of the usual mistakes.

A cause is named only where the output agrees with that wrong form far better than with the right one. All of this is
worked out after something was found wrong, and of a few heads and rows alone: a kernel that is right pays nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rls_bench.agreement import mistakes
from rls_bench.machines.threads import one_thread
from rls_bench.problems.inputs import Inputs

# What is held against each wrong form: so many heads, rows of each, and scores in all where keys are many.
_MOST_HEADS = 4
_MOST_ROWS = 64
_MOST_SCORES = 2**20
# A row is wrong where it errs this many times what its head may: a single row's error scatters.
_ROW = 4.0
# An output is a wrong form's where it lies this many times nearer to it than to the right one, ...
_NEARER = 4.0
# ... this near, relative, ...
_ALIKE = 0.25
# ... and no other form is nearer by this factor.
_BEST = 2.0
_MOST_CAUSES = 3


@dataclass(frozen=True)
class Wrong:
    """The first wrong row of an output, and the usual causes that fit, the likelier first.

    ``error`` is the size of the row's error over the row's own (over the head's mean row's where that is larger), or
    infinite where the row isn't finite.
    """

    batch: int
    head: int
    query: int
    error: float
    causes: tuple[str, ...]

    def __str__(self) -> str:
        size = f"off by {self.error:.2g} of its size" if math.isfinite(self.error) else "not finite"
        where = f"first wrong: batch {self.batch}, head {self.head}, query {self.query}, {size}"
        return f"{where}; cause: {', or '.join(self.causes)}" if self.causes else where


def explain(inputs: Inputs, output: Tensor, rows: Tensor, exact: Tensor, allowed: Tensor) -> Wrong:
    """What is wrong with ``output`` [B, Hq, Lq, Dv] of a call on ``inputs``, which was found wrong.

    ``exact`` is the oracle's output of the queries ``rows`` (int64), float64 [B, Hq, rows, Dv]; ``allowed`` the
    relative error that a head may have, [B, Hq].
    """
    found = output.detach().index_select(2, rows.to(output.device)).double().cpu()
    error = _row_errors(found, exact)
    wrong = ~(error <= _ROW * allowed[..., None])
    if not bool(wrong.any()):
        # No row stands out: the head that is furthest off is wrong as a whole.
        wrong = error >= error.amax()
    batch, head, row = (int(index) for index in wrong.nonzero()[0])
    size = float(error[batch, head, row])
    with one_thread():
        causes = list(_left_out(inputs, found, exact, wrong, rows)) or _alike(
            inputs, found, exact, error, wrong, rows, allowed
        )
    return Wrong(batch, head, int(rows[row]), size if math.isfinite(size) else math.inf, tuple(causes))


def _row_errors(found: Tensor, exact: Tensor) -> Tensor:
    """‖found − exact‖ of each row over its size, or over the head's mean row's where that is larger: [B, Hq, rows]."""
    size = exact.norm(dim=-1)
    measure = torch.maximum(size, size.square().mean(-1, keepdim=True).sqrt())
    return (found - exact).norm(dim=-1) / measure.masked_fill(measure == 0.0, 1.0)


def _left_out(inputs: Inputs, found: Tensor, exact: Tensor, wrong: Tensor, rows: Tensor) -> Iterator[str]:
    """In words, the part of the output that holds NaN or zeros, where all else is right."""
    if bool((exact[wrong] == 0.0).all()):
        yield "queries that see no key hold something other than 0"
        return
    blank = ~found.isfinite() | ((found == 0.0) & (exact != 0.0))
    if inputs.key_lengths is not None and not bool(inputs.key.isfinite().all() & inputs.value.isfinite().all()):
        if bool((~found[wrong].isfinite()).all()):
            yield "what padding holds is seen: a weight of 0 does not undo a NaN there"
        return
    blank_rows = blank.all(-1)
    if bool((wrong <= blank_rows).all()):
        yield f"{_extent(blank_rows, rows)} never written (NaN or zeros)"
        return
    columns = blank.flatten(0, 2).all(0)
    right_elsewhere = _row_errors(torch.where(columns, exact, found), exact) <= _ALIKE
    if bool(columns.any()) and not bool(columns.all()) and bool(right_elsewhere.all()):
        places = torch.arange(len(columns), device="cpu")
        yield f"the value columns {_span(columns, places)} are never written (NaN or zeros)"


def _extent(blank: Tensor, rows: Tensor) -> str:
    """In words, which of [B, Hq, rows] are ``blank``."""
    somewhere = blank.flatten(0, 1).any(0)
    if not bool(somewhere.all()):
        is_tail = bool(somewhere[-1]) and not bool(somewhere[0])
        return f"the {'tail ' if is_tail else ''}rows {_span(somewhere, rows)} are"
    for axis, name in ((1, "heads"), (0, "batches")):
        here = blank.any(-1).any(1 - axis)
        if not bool(here.all()):
            return f"the {name} {_span(here, torch.arange(len(here), device='cpu'))} are"
    return "the whole output is"


def _span(chosen: Tensor, numbers: Tensor) -> str:
    places = chosen.nonzero()[:, 0]
    return f"{int(numbers[places[0]])} to {int(numbers[places[-1]])}"


def _alike(
    inputs: Inputs, found: Tensor, exact: Tensor, error: Tensor, wrong: Tensor, rows: Tensor, allowed: Tensor
) -> list[str]:
    """The mistakes whose output ``found`` is, the nearest alone, in words."""
    heads = _worst_heads(error, wrong, 1 if inputs.problem.key_length > _MOST_SCORES // _MOST_ROWS else _MOST_HEADS)
    most = max(4, min(_MOST_ROWS, _MOST_SCORES // (len(heads) * inputs.problem.key_length)))
    chosen = _worst_rows(_of_heads(error, heads).amax(0), most)
    found, exact, wrong = (_of_heads(each, heads)[:, chosen] for each in (found, exact, wrong))
    near: dict[str, float] = {}
    for words, form in _forms(inputs, rows[chosen], found, exact):
        distance = _from_form(found, exact, form(heads[:1]), wrong)
        if math.isfinite(distance) and math.isfinite(distance := _from_form(found, exact, form(heads), wrong)):
            near[words] = distance
    # Half of what is allowed is eager's own error: distances that rounding makes tell no form from another.
    best = max(min(near.values(), default=0.0), float(allowed.max()) / 2)
    return [words for words, distance in near.items() if distance <= _BEST * best][:_MOST_CAUSES]


def _forms(
    inputs: Inputs, rows: Tensor, found: Tensor, exact: Tensor
) -> Iterator[tuple[str, Callable[[list[tuple[int, int]]], Tensor]]]:
    """Each mistake in words, and what a kernel that makes it gives for heads: [heads, rows, Dv]."""
    for mistake in mistakes.of(inputs):
        yield mistake.words, partial(mistakes.outputs, mistake, inputs, rows)
    factor = (found * exact).sum(-1, keepdim=True) / exact.square().sum(-1, keepdim=True).clamp_min(1e-30)
    if bool((factor > 0.0).all()):
        lost = "the weights are not divided by their own sum (each row is right but for a factor)"
        yield lost, lambda some: (factor * exact)[: len(some)]


def _from_form(found: Tensor, exact: Tensor, form: Tensor, wrong: Tensor) -> float:
    """How far ``found`` [heads, rows, Dv] lies from ``form``, which may be of the first heads alone; infinite where it
    is no such form's output.
    """
    found, exact, wrong = (each[: len(form)] for each in (found, exact, wrong))
    # Of a query that sees no key in the wrong form, kernels make NaN or anything else.
    counted = ~(form == 0.0).all(-1)
    # Where nothing wrong is left to compare, nothing is shown.
    if not bool((counted & wrong).any(-1).all()):
        return math.inf
    distance, where_wrong = _distance(found, form, counted), _distance(found, form, counted & wrong)
    fits = distance <= _ALIKE and where_wrong * _NEARER <= _distance(found, exact, counted & wrong)
    return distance if fits else math.inf


def _worst_heads(error: Tensor, wrong: Tensor, most: int) -> list[tuple[int, int]]:
    """Some heads that are wrong, (batch, head), the worst first."""
    worst = torch.where(wrong, error, -1.0).nan_to_num(torch.inf).amax(-1)
    order = worst.flatten().argsort(descending=True)[:most].tolist()
    places = [divmod(place, worst.shape[1]) for place in order]
    return [place for place in places if worst[place] >= 0.0]


def _worst_rows(error: Tensor, most: int) -> Tensor:
    """Places of some rows, the worst among them, of which each has an ``error`` [rows]."""
    if len(error) <= most:
        return torch.arange(len(error), device="cpu")
    evenly = torch.linspace(0, len(error) - 1, most // 2, dtype=torch.float64, device="cpu").round().long()
    return torch.cat([error.argsort(descending=True)[: most // 2], evenly]).unique()


def _of_heads(tensor: Tensor, heads: list[tuple[int, int]]) -> Tensor:
    """[heads, ...] from [B, Hq, ...]."""
    return torch.stack([tensor[place] for place in heads])


def _distance(found: Tensor, form: Tensor, counted: Tensor) -> float:
    """‖found − form‖ / ‖form‖ over the ``counted`` rows, of the worst of the heads [heads, rows, Dv]; NaN is far."""
    difference, size = (
        torch.where(counted[..., None], each, 0.0).flatten(1).norm(dim=-1) for each in (found - form, form)
    )
    return float((difference / size.clamp_min(1e-30)).nan_to_num(torch.inf).max())
