"""The first calls of a backend on a problem, in the backend's own process: what can only be seen there is seen here.

Whether the results are right is for the referee to say; they are handed over in a tray.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rls_bench.agreement.judgement import poisoned_heap, poisoned_memory
from rls_bench.backends.interface import Backend, Call
from rls_bench.problems.problem import Problem
from rls_bench.records.record import Status
from rls_bench.referee.bare import storage_address
from rls_bench.referee.contents import Contents
from rls_bench.referee.operands import Operands
from rls_bench.referee.pool import Pool
from rls_bench.referee.results import Tray, parts
from rls_bench.timing.training import prepared

# A thread that was handed the work has written its result after this long, or the sample's own end shows it.
_SETTLE_SECONDS = 0.05
# Slots of a tray: the first calls' results, and those of a turn's samples.
SLOTS = 8
# Runs a call and may time it.
Around = Callable[[Call], Any]


@dataclass(frozen=True)
class Finding:
    """What a check found: the status that the cell gets, and why."""

    status: Status
    reason: str


class Trial:
    """A backend prepared on one set of inputs, and its first calls."""

    def __init__(self, backend: Backend, pool: Pool, contents: Contents) -> None:
        """Lays the inputs out and prepares the backend on them; ``prepare`` may raise whatever it likes."""
        self.problem = pool.problem
        self.compiles = backend.compiles
        self.operands = Operands(pool, contents)
        # Results that lie in the tray.
        self.handed = 0
        self.call: Call = prepared(backend, self.operands.inputs)

    def look(self, tray: Tray, second: Contents, around: Around, thrice: bool = True) -> Finding | None:
        """Calls whose results go into the tray's first slots, all but the first on contents ``second``; ``thrice``: a
        third, which must repeat the second. What is wrong with them, or None.

        Fresh memory holds NaN at the first call, so that what it never writes shows.
        """
        try:
            return self._look(tray, second, around, thrice)
        except Wrong as error:
            return Finding("wrong", str(error))

    def _look(self, tray: Tray, second: Contents, around: Around, thrice: bool) -> Finding | None:
        self.compare()
        with poisoned_heap() if self.compiles else poisoned_memory():
            first = self._parts(around(self.call))
        tray.put(0, first)
        self.handed = 1
        self._own_storage(first, [])
        self.compare()

        self.operands.lay(second)
        again = self._parts(around(self.call))
        # On CUDA the copy is queued on the current stream, behind whatever the call queued there and nothing else.
        tray.put(1, again)
        self.handed = 2
        self._settle()
        if not tray.holds(1, again):
            where = "on another stream" if again[0].is_cuda else "in another thread"
            return Finding("wrong", f"its output changed after the call had returned: the work goes on {where}")
        self._own_storage(again, first)
        if thrice:
            third = self._parts(around(self.call))
            self._own_storage(third, [*first, *again])
            tray.put(2, third)
            self.handed = 3
        self.compare()
        return None

    def compare(self) -> None:
        """Raise where the inputs no longer hold what was written into them."""
        if changed := self.operands.changed():
            raise Wrong(f"changed its input {', '.join(changed)}")

    def _parts(self, result: Any) -> list[Tensor]:
        return result_parts(result, self.problem)

    def _settle(self) -> None:
        if self.problem.device.startswith("cuda"):
            torch.cuda.synchronize()
        else:
            time.sleep(_SETTLE_SECONDS)

    def _own_storage(self, found: list[Tensor], earlier: list[Tensor]) -> None:
        """Raise where results lie in the memory of an input, or of results before."""
        inputs = {storage_address(tensor): name for name, tensor in self.operands.inputs.tensors().items()}
        before = {storage_address(tensor) for tensor in earlier}
        for part in found:
            place = storage_address(part)
            if (name := inputs.get(place)) is not None:
                raise Wrong(f"its output lies in the memory of its input {name}")
            if place in before:
                raise Wrong("each output overwrites the one before: two results share memory")


class Wrong(Exception):
    """A check failed; the message is the reason."""


def result_parts(result: Any, problem: Problem) -> list[Tensor]:
    """As ``results.parts``, but what is no result is the backend's fault."""
    try:
        return parts(result, problem)
    except ValueError as error:
        raise Wrong(str(error)) from None
