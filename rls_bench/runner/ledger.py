"""The run's time: what is left of the budget, what each part may take, and where it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rls_bench.runner.plan import Effort


class Ledger:
    """Shares the budget among launches and problems; times are in seconds on a monotonic clock."""

    def __init__(self, budget: float, launches: int, problems: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._end = self._began + budget
        self._wanted = self._launches = launches
        self._problems = problems
        self._launch = 0
        self._slices_done = 0
        self._starts: list[float] = []
        self._checks: list[float] = []
        self._reserve: float | None = None
        self._rechecks: list[float] = []
        self._launch_seconds: list[float] = []
        self._launch_began = self._began
        self._calls = self._sampling = 0.0
        self._turns = 0.0
        self._compile = self._oracle = 0.0
        # Whether the turns of the slice before were cut short by their deadline.
        self.was_hurried = False

    def expects(self, launches: int, problems: int, reserve: float | None = None) -> None:
        """Share the time among so many launches of so many problems, where there is no room for all that was asked.

        ``reserve``: the seconds that all of it, from the current slice's turns on, will take beside turns, where more
        is known of that than what checks have taken so far.
        """
        self._launches = min(self._wanted, launches)
        self._problems = problems
        self._reserve = reserve

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._now() - self._began

    def start(self) -> float:
        """What starting a launch's processes took at least, seconds."""
        return min(self._starts, default=0.0)

    def begin_launch(self) -> None:
        """A new launch starts now."""
        if self._launch:
            self._launch_seconds.append(self._now() - self._launch_began)
        self._launch_began = self._now()
        self._launch += 1
        self._slices_done = 0

    def affords_another_launch(self) -> bool:
        """Whether the budget has room for one launch more like those before."""
        now = self._now()
        seconds = [*self._launch_seconds, now - self._launch_began] if self._launch else [0.0]
        # Less than half of an earlier one is needed: only cells that are unsure still take part.
        return now + max(min(seconds) / 2, min(self._starts, default=0.0)) < self._end

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Time in which processes start."""
        began = self._now()
        try:
            yield
        finally:
            self._starts.append(self._now() - began)

    @contextmanager
    def checking(self, thorough: bool) -> Iterator[None]:
        """Time in which one problem's cells are prepared and checked."""
        began = self._now()
        try:
            yield
        finally:
            (self._checks if thorough else self._rechecks).append(self._now() - began)

    @contextmanager
    def taking_turns(self) -> Iterator[None]:
        """Time in which one problem's cells are warmed up and sampled."""
        began = self._now()
        try:
            yield
        finally:
            self._turns += self._now() - began

    def checked(self, calls_ns: int, compile_seconds: float | None) -> None:
        """Add what a check took: inside calls, and compiling."""
        self._calls += calls_ns / 1e9
        self._compile += compile_seconds or 0.0

    def excuse(self, seconds: float) -> None:
        """Give back what waiting for a backend that never answered has taken from the others."""
        self._end += seconds

    def judged(self, seconds: float) -> None:
        """Add a wait for the referee."""
        self._oracle += seconds

    def sampled(self, calls_ns: int) -> None:
        """Add the time that a turn spent inside calls."""
        self._calls += calls_ns / 1e9
        self._sampling += calls_ns / 1e9

    def slice_deadline(self) -> float:
        """When the current problem's turns in this launch should end, so that all the others get as much."""
        launches_left = max(0, self._launches - self._launch)
        # The current one is under way, whatever was expected.
        slices_here = max(1, self._problems - self._slices_done)
        slices_left = slices_here + launches_left * self._problems
        check = _mean(self._checks)
        recheck = _mean(self._rechecks) if self._rechecks else check / 3
        reserve = launches_left * _mean(self._starts) + (slices_left - 1) * recheck
        if self._launch == 1:
            reserve += (slices_here - 1) * (check - recheck)
        reserve = reserve if self._reserve is None else self._reserve
        return self._now() + max(0.0, self._end - self._now() - reserve) / slices_left

    def slice_done(self) -> None:
        """One problem of this launch is over."""
        self._slices_done += 1

    def effort(self) -> Effort:
        """Where the time went so far."""
        return Effort(
            wall=self._now() - self._began,
            start=sum(self._starts),
            check=sum(self._checks) + sum(self._rechecks),
            compile=self._compile,
            oracle=self._oracle,
            turns=self._turns,
            calls=self._calls,
            sampling=self._sampling,
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
