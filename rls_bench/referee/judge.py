"""Judges what a call returned, by rules that are the same for the first call and for one that was timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rls_bench.agreement.causes import explain
from rls_bench.agreement.judgement import FLOAT32_SLACK, FLOOR_FACTOR, STATS_SLACK, relative_error
from rls_bench.backends.interface import AttentionStats
from rls_bench.problems.inputs import Inputs
from rls_bench.records.record import Agreement
from rls_bench.referee import pool as pools
from rls_bench.referee import truth
from rls_bench.referee.contents import Contents, Mix, Units
from rls_bench.referee.gradients import Gradients
from rls_bench.referee.pool import Pool
from rls_bench.referee.truth import Truth

# How far rows may lie from the plain form, in allowances of their head: all of a head, and a single row, whose error
# scatters. The plain form itself may err by one floor.
_HEAD = (FLOOR_FACTOR + 1) / FLOOR_FACTOR
_ROW = 16.0
# A row that lies this near to another draw's answer, relative, is the answer to it.
_ALIKE = 0.02
STALE = "its result doesn't follow new values in the same input tensors: it was kept from before"


@dataclass(frozen=True)
class Result:
    """A call's ``output`` [B, Hq, Lq, Dv], its statistics and gradients by operand, in memory of the judge's own."""

    output: Tensor
    stats: AttentionStats | None = None
    gradients: dict[str, Tensor] | None = None


class Judge:
    """Knows what is right for every mix of one pool's draws; works a pair of draws out when it is first needed."""

    def __init__(self, pool: Pool, salt: str) -> None:
        self.pool = pool
        self._rows = truth.rows_to_judge(pool.problem, salt)
        self._units = Units.of(pool.problem)
        self._truths: dict[tuple[int | str, int | None], Truth] = {}
        # Queries drawn apart, by their salt: sealed memory, and what it holds.
        self._unseen: dict[str, tuple[int, Pool]] = {}
        self._gradients = Gradients(salt)

    @property
    def size(self) -> int:
        """Bytes that the pool and what is known of it take."""
        problem = self.pool.problem
        rows = problem.batch * problem.query_heads * problem.query_length
        # Six plain outputs in float32: four pairs of draws, and two at λ = 0; and one for each draw apart.
        memory = len(self.pool.memory) + sum(len(queries.memory) for _, queries in self._unseen.values())
        return memory + (6 + len(self._unseen)) * 4 * rows * problem.value_dim

    def unseen(self, salt: str) -> tuple[int, Pool]:
        """Queries drawn apart by ``salt``: the sealed memory, and what it holds."""
        if salt not in self._unseen:
            memory, layout = pools.fill_unseen(self.pool.layout, salt)
            self._unseen[salt] = memory, Pool(memory, layout)
        return self._unseen[salt]

    def close(self) -> None:
        """Let go of the sealed memory of queries drawn apart."""
        for memory, _ in self._unseen.values():
            os.close(memory)
        self._unseen.clear()

    def look(self) -> None:
        """Work out what steered backends are judged by."""
        for query in (0, 1):
            self._truth(query, None)
            for bias in (0, 1):
                _ = self._truth(query, bias).plain

    def judge(self, result: Result, contents: Contents, steers: bool, unseen: str = "") -> Agreement:
        """Whether ``result`` is right for ``contents``; a backend that doesn't steer is judged at λ = 0.

        ``unseen``: the salt of the queries, where they are not of ``contents`` but were drawn apart.
        """
        negated = contents.negated and not self.pool.problem.requires_grad
        output = -result.output if negated else result.output
        mix = Mix.at(contents, self._units.count)
        draws: tuple[int | str, int | str] = (unseen, unseen) if unseen else (0, 1)
        first, second = (self._truth(query, contents.bias if steers else None) for query in draws)
        rows = self._sides(mix)
        judged_rows = rows.index_select(2, self._rows)
        exact = _mixed(judged_rows, first.exact.output, second.exact.output)
        at_zero = [self._truth(query, None) for query in draws]
        floor = self._floor(judged_rows, exact, (first, second), (at_zero[0], at_zero[1]))
        allowed = FLOOR_FACTOR * floor + (FLOAT32_SLACK if output.dtype == torch.float32 else 0.0)
        inputs = self._inputs(contents, mix, steers, unseen)
        is_finite = output.isfinite()
        if not bool(is_finite.all()):
            bad = f"{int((~is_finite).sum())} of {output.numel()} output elements are not finite, or were never written"
            return failed(f"{bad}; {self._where(output, inputs, exact, allowed)}")
        error = relative_error(output.index_select(2, self._rows).double(), exact)
        ratio = float((error / floor).max())
        reason = ""
        # Here and below: what must be shown to hold, so that nothing passes on NaN.
        if not bool((error <= allowed).all()):
            reason = f"error is {ratio:.1f} × the floor; at most {FLOOR_FACTOR:g}"
        else:
            reason = _stray_rows(output, _mixed(rows, first.plain, second.plain), allowed)
        if not reason and result.stats is not None:
            reason = self._stray_stats(result.stats, rows, judged_rows, first, second)
        if not reason and result.gradients is not None:
            reason = self._gradients.stray(result.gradients, inputs(), contents, steers)
        elif reason and self._was_right_before(output, None if unseen else rows, contents.bias, steers):
            reason = STALE
        elif reason and not bool((error <= allowed).all()):
            reason = f"{reason}; {self._where(output, inputs, exact, allowed)}"
        if reason and negated:
            reason = f"on a second set of inputs, with keys and values of its own: {reason}"
        return Agreement(float(error.max()), float(floor.max()), ratio, passed=not reason, reason=reason)

    def _where(self, output: Tensor, inputs: Callable[[], Inputs], exact: Tensor, allowed: Tensor) -> str:
        """The first wrong row among the oracle's, and why it is wrong where a usual cause fits."""
        return str(explain(inputs(), output, self._rows, exact, allowed))

    def _inputs(self, contents: Contents, mix: Mix, steers: bool, unseen: str) -> Callable[[], Inputs]:
        """Makes what the call was given; at λ = 0 for a backend that doesn't steer."""

        def inputs() -> Inputs:
            first, second = (self.pool.inputs(query, contents.bias) for query in (0, 1))
            query = torch.where(self._sides(mix)[..., None].to(first.query.device), second.query, first.query)
            mixed = first.with_operands(query, first.key, first.value)
            given = self.pool.inputs(self._queries(unseen), contents.bias) if unseen else mixed
            return given if steers else truth.unsteered(given)

        return inputs

    def _queries(self, which: int | str) -> int | Tensor:
        """The queries of a draw of the pool, or of one apart."""
        return which if isinstance(which, int) else self.unseen(which)[1].tensors["query"]

    def _truth(self, query: int | str, bias: int | None) -> Truth:
        """Of a draw of the queries, or one apart, and one of the saliency; None: at λ = 0."""
        if (query, bias) not in self._truths:

            def inputs() -> Inputs:
                given = self.pool.inputs(self._queries(query), bias or 0)
                return truth.unsteered(given) if bias is None else given

            self._truths[query, bias] = truth.of(inputs, self._rows)
        return self._truths[query, bias]

    def _sides(self, mix: Mix) -> Tensor:
        """Which draw each row's query is of, bool [B, Hq, Lq]."""
        problem = self.pool.problem
        shape = problem.batch, problem.query_heads, problem.query_length
        sides = torch.frombuffer(mix.sides, dtype=torch.uint8).bool().repeat_interleave(self._units.rows)
        return sides[: shape[0] * shape[1] * shape[2]].reshape(shape)

    def _floor(self, rows: Tensor, exact: Tensor, steered: tuple[Truth, Truth], at_zero: tuple[Truth, Truth]) -> Tensor:
        """What the dtype itself can do, [B, Hq]: see ``rls_bench.agreement.judgement``."""
        roundoff = torch.finfo(getattr(torch, self.pool.problem.dtype)).eps / 2
        by_eager = relative_error(_mixed(rows, steered[0].eager, steered[1].eager), exact)
        plain, other = at_zero
        by_plain = relative_error(
            _mixed(rows, plain.eager, other.eager), _mixed(rows, plain.exact.output, other.exact.output)
        )
        floor = torch.maximum(by_eager, by_plain).clamp_min(roundoff)
        # Scores that leave eager's dtype, as float16's may: twice the roundoff stands in for NaN.
        return torch.where(floor.isfinite(), floor, 2 * roundoff)

    def _stray_stats(
        self, stats: AttentionStats, rows: Tensor, judged_rows: Tensor, first: Truth, second: Truth
    ) -> str:
        """The first statistic that is further off than twice eager's own error, or an empty string."""
        # Statistics are handed over where the problem asks for them, and then the truth has them too.
        for each in (first, second):
            assert each.eager_stats is not None
            assert each.plain_stats is not None
        for name in AttentionStats._fields:
            exact = _mixed(judged_rows, getattr(first.exact, name), getattr(second.exact, name))
            by_eager = _mixed(judged_rows, getattr(first.eager_stats, name), getattr(second.eager_stats, name))
            by_how_much = (by_eager - exact).abs()
            floor = FLOOR_FACTOR * torch.where(by_how_much.isfinite(), by_how_much, 0.0).amax()
            found = getattr(stats, name).double()
            plain = _mixed(rows, getattr(first.plain_stats, name), getattr(second.plain_stats, name)).double()
            for seen, wanted, times in ((found.index_select(2, self._rows), exact, 1.0), (found, plain, _HEAD)):
                allowed = times * floor + times * STATS_SLACK * (1 + wanted.abs())
                if not bool(allowed.isfinite().all() & ((seen - wanted).abs() <= allowed).all()):
                    worst = float((seen - wanted).abs().max())
                    return f"stats.{name} is off by {worst:.2g}; at most {float(allowed.min()):.2g}"
        return ""

    def _was_right_before(self, output: Tensor, rows: Tensor | None, bias: int, steers: bool) -> bool:
        """Whether each row of the output is nearly right for one draw or the other, and not for the call's own
        ``rows``; None: those are of neither."""

        def off(wanted: Tensor) -> Tensor:
            size = wanted.norm(dim=-1)
            typical = size.square().mean().sqrt()
            return ~((output.float() - wanted).norm(dim=-1) <= _ALIKE * size.clamp_min(typical))

        sides: tuple[int | None, ...] = (bias, 1 - bias) if steers else (None,)
        plain = [tuple(self._truth(query, side).plain for query in (0, 1)) for side in sides]
        # What is a little off for its own contents follows them: saliency may weigh next to nothing.
        if rows is not None and not bool(off(_mixed(rows, *plain[0])).any()):
            return False
        return any(not bool((off(first) & off(second)).any()) for first, second in plain)


def _mixed(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Rows of ``second`` where ``rows`` [B, Hq, n] holds, else of ``first``; both [B, Hq, n] or [B, Hq, n, Dv]."""
    return torch.where(rows[..., None] if first.ndim > rows.ndim else rows, second, first)


def _stray_rows(output: Tensor, plain: Tensor, allowed: Tensor) -> str:
    """What of ``output`` lies further from ``plain`` [B, Hq, Lq, Dv] than ``allowed`` [B, Hq], or an empty string."""
    allowed = allowed.float()
    difference, size = (output.float() - plain).norm(dim=-1), plain.norm(dim=-1)
    whole = size.norm(dim=-1)
    # As in relative_error: where the answer is all zero, what is written is the error.
    share = difference.norm(dim=-1) / whole.masked_fill(whole == 0.0, 1.0)
    if not bool((share <= _HEAD * allowed).all()):
        worst = float((share / allowed).max()) * FLOOR_FACTOR
        return f"error over all rows is {worst:.1f} × the floor; at most {FLOOR_FACTOR * _HEAD:g}"
    # A row of little weight is measured by the head's mean, lest its own cancellations accuse it.
    measure = torch.maximum(size, (whole / size.shape[-1] ** 0.5)[..., None])
    shares = difference / measure.masked_fill(measure == 0.0, 1.0)
    off = ~(shares <= _ROW * allowed[..., None])
    if not bool(off.any()):
        return ""
    batch, head, row = (int(index) for index in off.nonzero()[0])
    which = f"the first is row {row} of batch {batch}, head {head}"
    return f"{int(off.sum())} rows are off by up to {float(shares.max()):.2g} of their size; {which}"


def failed(reason: str) -> Agreement:
    """A verdict on what could not be held against anything."""
    return Agreement(error=None, floor=None, ratio=None, passed=False, reason=reason)
