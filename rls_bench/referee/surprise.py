"""A call on queries that the process never saw, and calls on what it did to hold it against.

Contents change before every timed call, but each row of them is of one of two draws, and most rows stay from call to
call. A kernel that keeps results row by row is right there, and quick for what nobody would ask of it. So each launch
ends with a call on queries drawn apart; ``novelty`` says how much longer that may take.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from rls_bench.backends.interface import Call
from rls_bench.referee.contents import Contents
from rls_bench.referee.operands import Operands
from rls_bench.referee.pool import Pool
from rls_bench.timing import clock


def surprise(operands: Operands, call: Call, contents: Contents, queries: Pool, calls: int) -> tuple[Any, int, int]:
    """Call ``calls`` times on ``contents``, changed before each, and then on ``queries``.

    Returns the last result, the nanoseconds that it took, and the median of those on ``contents``; 0 for none.
    The least of them would be one that no neighbour got in the way of, which the single other call isn't.
    """
    on_cuda = operands.inputs.problem.device.startswith("cuda")
    operands.lay(contents)
    seen_ns = []
    for _ in range(calls):
        operands.renew()
        seen_ns.append(_to_its_end(call, on_cuda)[1])
    operands.surprise(queries)
    result, unseen_ns = _to_its_end(call, on_cuda)
    return result, unseen_ns, int(median(seen_ns)) if seen_ns else 0


def _to_its_end(call: Callable[[], Any], on_cuda: bool) -> tuple[Any, int]:
    if on_cuda:
        torch.cuda.synchronize()
    start = clock.now_ns()
    result = call()
    if on_cuda:
        torch.cuda.synchronize()
    return result, clock.now_ns() - start
