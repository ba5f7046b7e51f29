"""What a run is expected to take, part by part, and what a limit leaves out of it; said before any of it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rls_bench.problems.problem import Problem

# Rough figures of a core or two, from runs of the suites on a CPU; a machine's own earlier runs take their place.
_FLOP_A_SECOND = {"cpu": 1e11, "cuda": 1e13}
_SCORE_SECONDS = {"cpu": 1e-9, "cuda": 1e-11}
_CALL_SECONDS = 1e-3
_ORACLE_FLOP_A_SECOND = 5e10
_ORACLE_SCORE_SECONDS = 8e-9
# Two draws of the queries, each with two of the saliency and once without.
_ORACLE_ANSWERS = 6
_COMPILE_SECONDS = {False: 12.0, True: 1.0}
_CHECK_SECONDS, _CHECK_CALLS = {False: 0.2, True: 0.1}, {False: 5, True: 4}
_WARMUP_SECONDS, _SAMPLES = 0.8, 20
_LEAST_WARMUP_SECONDS, _LEAST_SAMPLES = 0.1, 4
# One has none: it says nothing of how far launches scatter.
LAUNCHES_OF_AN_INTERVAL = 2


@dataclass(frozen=True)
class Slice:
    """One problem in one launch, seconds: ``turns`` until every interval is narrow, of which ``least`` are taken in any
    case."""

    compile: float = 0.0
    oracle: float = 0.0
    check: float = 0.0
    turns: float = 0.0
    least: float = 0.0

    @property
    def before(self) -> float:
        """Until the turns begin."""
        return self.compile + self.oracle + self.check

    @property
    def least_seconds(self) -> float:
        """What it takes to be measured at all."""
        return self.before + self.least

    def times(self, factor: float, compiling: float) -> Slice:
        """All of it, longer by ``factor``, and its compiling by a factor of its own."""
        rest = (factor * part for part in (self.oracle, self.check, self.turns, self.least))
        return Slice(compiling * self.compile, *rest)

    def again(self) -> Slice:
        """At most what a later launch of the same takes: what compiled is kept, all else is done once more."""
        return replace(self, compile=min(self.compile, _COMPILE_SECONDS[True]))


@dataclass(frozen=True)
class Forecast:
    """``first`` are the problems in the first launch, ``later`` in each other one; ``start`` is what a launch's
    processes take to come up. ``cells`` are those that take part."""

    cells: int
    launches: int
    start: float
    first: Sequence[Slice]
    later: Sequence[Slice]

    def fit(self, seconds: float) -> Fit:
        """What there is room for, in order of worth: the problems as they are named, each in as many launches as an
        interval takes, then launch after launch; where there is no such room, one launch of those that fit."""
        launches = min(LAUNCHES_OF_AN_INTERVAL, self.launches)
        kept, spent = self._problems_in(launches, seconds)
        if spent > seconds:
            launches = 1
            kept, spent = self._problems_in(launches, seconds)
        # Where even that is too much the limit cuts it short.
        spent = min(spent, seconds)
        again = self.start + sum(self.later[index].least_seconds for index in kept)
        while launches < self.launches and spent + again <= seconds:
            launches, spent = launches + 1, spent + again
        parts = [self.first[index] for index in kept] + (launches - 1) * [self.later[index] for index in kept]
        fixed = launches * self.start + sum(each.before for each in parts)
        wanted = sum(each.turns for each in parts)
        # What is cut short by the limit takes no longer than that.
        check = sum(each.check for each in parts)
        check = max(0.0, check - max(0.0, fixed - seconds))
        return Fit(
            launches=launches,
            left_out=[index for index in range(len(self.first)) if index not in kept],
            start=launches * self.start,
            compile=sum(each.compile for each in parts),
            oracle=sum(each.oracle for each in parts),
            check=check,
            turns=max(0.0, min(wanted, seconds - fixed)),
        )

    def _problems_in(self, launches: int, seconds: float) -> tuple[list[int], float]:
        """The problems that ``seconds`` have room for so often, and what that takes; the first is tried in any case."""
        spent, kept = launches * self.start, list[int]()
        for index, (first, later) in enumerate(zip(self.first, self.later, strict=True)):
            needed = first.least_seconds + (launches - 1) * later.least_seconds
            if index == 0 or spent + needed <= seconds:
                kept.append(index)
                spent += needed
        return kept, spent

    def title(self, seconds: float, problems: Sequence[Problem]) -> str:
        """Two sentences at most: how long it takes, and what a limit of ``seconds`` leaves out."""
        fit = self.fit(seconds)
        total = _span(min(fit.total, seconds))
        text = (
            f"{self.cells} cells × {self.launches} launches: about {total}: starting {fit.start:.0f} s, "
            f"compiling {fit.compile:.0f} s, oracle {fit.oracle:.0f} s, checks {fit.check:.0f} s, "
            f"turns {fit.turns:.0f} s"
        )
        left = []
        if fit.launches < self.launches:
            first = fit.launches + 1
            left.append(f"launch {first}" if first == self.launches else f"launches {first} to {self.launches}")
        left += [problems[index].title for index in fit.left_out]
        if not left:
            return text
        whole = self.fit(float("inf")).total
        return f"{text}; --budget {seconds:g} leaves out {', '.join(left)}; all of it takes about {_span(whole)}"


@dataclass(frozen=True)
class Fit:
    """What is done of a forecast, seconds by part, and the indices of the problems that are ``left_out``."""

    launches: int
    left_out: list[int]
    start: float
    compile: float
    oracle: float
    check: float
    turns: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.start + self.compile + self.oracle + self.check + self.turns


def by_arithmetic(problem: Problem, timed: int, slow: int, questions: int, again: bool) -> Slice:
    """A problem's slice by its size alone: ``timed`` labels that take turns, ``slow`` ones that compile or interpret;
    ``again``: in a later launch."""
    scores = problem.batch * problem.query_heads * problem.query_length * problem.key_length
    flop = 2 * scores * (problem.head_dim + problem.value_dim)
    call = _CALL_SECONDS + flop / _FLOP_A_SECOND[problem.device] + scores * _SCORE_SECONDS[problem.device]
    answer = flop / _ORACLE_FLOP_A_SECOND + scores * _ORACLE_SCORE_SECONDS
    return Slice(
        compile=slow * _COMPILE_SECONDS[again],
        oracle=0.0 if again else 0.2 + _ORACLE_ANSWERS * answer,
        check=timed * (_CHECK_SECONDS[again] + _CHECK_CALLS[again] * call),
        turns=timed * questions * (_WARMUP_SECONDS + _SAMPLES * call),
        least=timed * questions * (_LEAST_WARMUP_SECONDS + _LEAST_SAMPLES * call),
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
