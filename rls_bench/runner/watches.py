"""Which stopwatch answers a question about a problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rls_bench.problems.problem import Problem
from rls_bench.records.record import Question
from rls_bench.timing import caches, cuda, stopwatch


def stopwatch_for(question: Question, problem: Problem, renew: stopwatch.Renew) -> stopwatch.Stopwatch:
    """The one for ``question``; on a CPU ``renew`` changes the inputs of that number before each call."""
    if problem.device == "cuda":
        if question == "cold":
            return cuda.ColdL2(torch.cuda, caches.flusher("cuda"))
        watches: dict[Question, Callable[[Any], stopwatch.Stopwatch]] = {
            "warm": cuda.WarmL2,
            "graph": cuda.Graph,
            "host": cuda.Host,
        }
        return watches[question](torch.cuda)
    if question == "cold":
        return stopwatch.Cold(renew=renew)
    return stopwatch.Warm(primes=fits_in_cache(problem), renew=renew)


def fits_in_cache(problem: Problem) -> bool:
    """Whether all inputs together fit in the last cache of their device."""
    return problem.input_bytes < caches.last_level_bytes(problem.device)
