"""The forecast held against what happens: what there is still room for, how far the run is, what to expect next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rls_bench.runner import remembered
from rls_bench.runner.board import Board
from rls_bench.runner.crew import Crew
from rls_bench.runner.forecast import LAUNCHES_OF_AN_INTERVAL, Fit, Forecast, Slice, by_arithmetic
from rls_bench.runner.ledger import Ledger
from rls_bench.runner.limit import Limit
from rls_bench.runner.plan import Effort, Plan

# A forecast that is far off is corrected by what the first slices took, but not by more than this.
_MOST_PACE = 5.0
# What a look takes from the run is less.
_LOOK_SECONDS = 15.0


class Outlook:
    """What is ahead of a run; knows nothing until ``foresee``."""

    def __init__(self, plan: Plan, ledger: Ledger, limit: Limit) -> None:
        self._plan = plan
        self._ledger = ledger
        self._limit = limit
        self._keys: list[str] = []
        self._forecast: Forecast | None = None
        self._fit: Fit | None = None
        # What the slices done so far were expected to take, and what they took, without turns: compiling, and the rest.
        # What is to be compiled is a backend's own word. Where hours come to nothing, no problem of others' is left out
        # for them.
        self._compiling, self._checking = _Pace(least=0.0), _Pace(least=1 / _MOST_PACE)
        # Of the slice under way, until its checks have shown the pace: what was expected, and where time had gone.
        self._under_way: tuple[Slice, Effort] | None = None
        # By problem, the seconds that are waited for those that compile for themselves.
        self._waits: list[float] = []
        # How many launches, of which problems, there is room for.
        self._launches, self._part = 0, list[int]()
        self._learnt: dict[str, Slice] = {}
        self._done: set[tuple[int, int]] = set()
        self._share = 0.0

    def foresee(self, board: Board, crew: Crew) -> str:
        """Make the forecast once processes are up and have said what they can do; one line that tells it."""
        known = remembered.load() if self._plan.limit_seconds is not None else {}
        first, later, cells = [], [], 0
        counted: set[tuple[str, str]] = set()

        def build_seconds(labels: list[str], index: int) -> float:
            """What a problem is the first to have compiled, which the next then find."""
            asked = [(label, crew.to_build[label][index]) for label in labels if crew.to_build.get(label)]
            parts = {(label, name): seconds for label, named in asked for name, seconds in named.items()}
            new = parts.keys() - counted
            counted.update(new)
            return sum(parts[each] for each in new)

        fingerprint = board.machine.fingerprint if board.machine is not None else ""
        twin = self._plan.aa and not board.has_twin()
        for index, problem in enumerate(self._plan.problems):
            labels = [label for label in crew.pids() if board[label, index].is_open]
            timed = [label for label in labels if crew.measurable[label].yes]
            slow = [label for label in labels if label in crew.slow]
            cells += len(labels)
            key = f"{fingerprint} {problem.key} {' '.join(labels)}"
            self._keys.append(key)
            questions = len(self._plan.questions_for(problem))
            count = len(timed) + (twin and bool(timed))
            recompiled = len([label for label in slow if label in timed])
            once = known.get(key)
            likely = once or by_arithmetic(problem, count, len(slow), questions, again=False)
            first.append(replace(likely, compile=likely.compile + build_seconds(labels, index)))
            self._waits.append(likely.compile)
            again = by_arithmetic(problem, count, recompiled, questions, again=True)
            later.append(known.get(f"{key} again") or (once.again() if once else again))
        self._forecast = Forecast(cells, self._plan.launches, self._ledger.start(), first, later)
        seconds = self._ledger.elapsed() + max(0.0, self._limit.left())
        self._fit = self._forecast.fit(seconds)
        left_out = self._fit.left_out
        self._expect(self._fit.launches, [index for index in range(len(self._keys)) if index not in left_out])
        return self._forecast.title(min(seconds, self._plan.budget_seconds), self._plan.problems)

    def is_worth_a_look(self, index: int) -> bool:
        """Whether those that compile would be waited for so long that others take turns for a look first: the first
        problem of a run that has time for it."""
        if self._forecast is None or self._done or self._waits[index] < _LOOK_SECONDS:
            return False
        return 2 * self._forecast.first[index].before <= self._limit.left()

    def has_room(self, index: int, again: bool) -> bool:
        """Whether a problem can be checked, and sampled a little, before the limit.

        The first is always tried: a forecast may rest on a busier hour, and what it takes puts the others right.
        """
        return not self._done or self._needed(index, again) <= self._limit.left()

    def has_room_for_launch(self, indices: Iterable[int]) -> bool:
        """Whether another launch of one at least of these problems fits."""
        needed = [self._needed(index, again=self._times_done(index) > 0) for index in indices]
        return self._ledger.start() + min(needed, default=0.0) <= self._limit.left()

    def _needed(self, index: int, again: bool) -> float:
        """Seconds without which a problem isn't begun: while others want launches, those of an interval for it and for
        each of them, which one launch of one problem more is not worth."""
        needed = self._ahead(index, again).least_seconds
        if again or not any(0 < self._times_done(other) < self._plan.launches for other in range(len(self._keys))):
            return needed
        once = [other for other in range(len(self._keys)) if self._times_done(other) == 1]
        later = self._ledger.start() + sum(self._ahead(other, again=True).least_seconds for other in once)
        if later > self._limit.left():
            # There is no room for theirs in any case.
            return needed
        return needed + later + self._ahead(index, again=True).least_seconds

    def share_anew(self, launch: int, index: int) -> None:
        """Share the time among as many launches as it has room for, by what checks have taken so far.

        To be asked once a problem is checked, before its turns: an interval over launches is worth more than turns in
        one of them, and a forecast may have been far too dear.
        """
        self._learn_pace()
        if self._forecast is None or self._fit is None or self._limit.left() == math.inf:
            return
        begun = [other for other in range(index + 1) if other == index or self._times_done(other)]
        to_come = range(index + 1, len(self._keys))
        enough = min(LAUNCHES_OF_AN_INTERVAL, self._plan.launches)
        launches, kept = self._launches_of(begun, [], index, launch), list[int]()
        if launches < enough:
            # This launch is all that there is.
            launches = launch
            kept = [other for other in to_come if other not in self._fit.left_out]
        else:
            for other in to_come:
                if (fewer := self._launches_of(begun, [*kept, other], index, launch)) >= enough:
                    kept, launches = [*kept, other], fewer
        later = [self._ahead(other, again=True) for other in [*begun, *kept]]
        reserve = (launches - launch) * (self._ledger.start() + sum(each.before for each in later))
        reserve += sum(self._ahead(other, again=self._times_done(other) > 0).before for other in kept)
        self._expect(launches, [*begun, *kept], reserve)

    def _expect(self, launches: int, problems: list[int], reserve: float | None = None) -> None:
        """Share the time among what there is room for."""
        self._launches, self._part = launches, problems
        self._ledger.expects(launches, len(problems), reserve)

    def _launches_of(self, begun: list[int], to_come: list[int], index: int, launch: int) -> int:
        """How many launches of these problems there is time for, the slice ``index`` being about to take turns; 0 where
        not even the current one has it."""
        left = self._limit.left() - self._slice(index, again=launch > 1).least
        left -= sum(self._ahead(other, again=self._times_done(other) > 0).least_seconds for other in to_come)
        if left < 0:
            return 0
        again = [self._ahead(other, again=True) for other in [*begun, *to_come]]
        each_seconds, launches = self._ledger.start() + sum(each.least_seconds for each in again), launch
        while launches < self._plan.launches and left >= each_seconds:
            launches, left = launches + 1, left - each_seconds
        return launches

    @contextmanager
    def slice(self, index: int, launch: int, again: bool) -> Iterator[None]:
        """One problem in one launch is gone through meanwhile: learn what it takes."""
        expected, before = self._slice(index, again), self._ledger.effort()
        self._under_way = expected, before
        yield
        self._learn_pace()
        after = self._ledger.effort()
        compiled, oracle = after.compile - before.compile, after.oracle - before.oracle
        checked, turns = after.check - before.check, after.turns - before.turns
        took = Slice(compiled, oracle, max(0.0, checked - compiled - oracle), turns, expected.least)
        if self._ledger.was_hurried:
            took = replace(took, turns=max(turns, expected.turns))
        self._done.add((index, launch))
        if self._keys:
            self._learnt[f"{self._keys[index]} again" if again else self._keys[index]] = took

    def share_done(self) -> float:
        """How far the run is, from 0 to 1, by the expected time of what is done and what is ahead; never less than
        before."""
        if self._forecast is not None:
            elapsed = self._ledger.elapsed()
            self._share = max(self._share, elapsed / max(elapsed + self.seconds_ahead(), 1e-9))
        return min(self._share, 1.0)

    def seconds_ahead(self) -> float:
        """What the rest of the run is expected to take; 0 before the forecast."""
        if self._fit is None:
            return 0.0
        ahead = sum(
            each.before + each.turns
            for launch in range(1, self._launches + 1)
            for index in self._part
            if (index, launch) not in self._done
            for each in [self._ahead(index, launch > 1)]
        )
        budget_left = self._plan.budget_seconds - self._ledger.elapsed()
        return min(ahead, max(0.0, self._limit.left()), max(0.0, budget_left) or math.inf)

    def remember(self) -> None:
        """Keep what was learnt for the next run."""
        if self._learnt and self._plan.limit_seconds is not None:
            remembered.save(self._learnt)

    def _learn_pace(self) -> None:
        if self._under_way is not None:
            expected, before = self._under_way
            self._under_way = None
            after = self._ledger.effort()
            compiled = after.compile - before.compile
            self._compiling.add(expected.compile, compiled)
            self._checking.add(expected.before - expected.compile, after.check - before.check - compiled)

    def _times_done(self, index: int) -> int:
        return sum(done == index for done, _ in self._done)

    def _slice(self, index: int, again: bool) -> Slice:
        if self._forecast is None:
            return Slice()
        if again and self._keys and (found := self._learnt.get(f"{self._keys[index]} again")):
            return found
        return (self._forecast.later if again else self._forecast.first)[index]

    def _ahead(self, index: int, again: bool) -> Slice:
        """A slice that is to come, at the pace of those that are done."""
        expected = self._slice(index, again)
        if again and self._keys and f"{self._keys[index]} again" in self._learnt:
            return expected
        likely = expected.times(self._checking.factor(), self._compiling.factor())
        # What the first launch took is no forecast.
        once = self._learnt.get(self._keys[index]) if again and self._keys else None
        return min(likely, once.again(), key=lambda each: each.before) if once else likely


class _Pace:
    """How much longer things take than was expected."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._expected = self._took = 0.0

    def add(self, expected: float, took: float) -> None:
        """What one more of them was expected to take, and what it took."""
        self._expected += expected
        self._took += max(0.0, took)

    def factor(self) -> float:
        """By which to multiply what is expected of the next."""
        pace = self._took / self._expected if self._expected > 0 else 1.0
        return min(max(pace, self._least), _MOST_PACE)
