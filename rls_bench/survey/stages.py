"""The stages of a survey in the order of their value, and what each may take of the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step, run as ``python -m rls_bench.survey.work NAME …`` in a process of its own.

    ``weight`` shares out the time that is left among the stages still to come. ``beside``: it starts with the survey
    and works beside the first stages, which measure nothing. ``cuda_only`` is why it doesn't run elsewhere.
    ``least_seconds``: with less it isn't worth its start.
    """

    name: str
    weight: float
    about: str
    beside: bool = False
    cuda_only: str = ""
    least_seconds: float = 15.0

    def runs_on(self, device: str) -> bool:
        """Whether there is anything for it to do on ``device``."""
        return device == "cuda" or not self.cuda_only


STAGES = (
    Stage("compile", 0.0, "kernels of the telling problems, compiled on all cores", beside=True),
    Stage("doctor", 6.0, "the machine, its versions, what is missing", least_seconds=30.0),
    Stage("agreement", 12.0, "every backend against the oracle, on cases that reach every branch"),
    Stage("tuning", 8.0, "block sizes of our prefill kernel", cuda_only="only kernels on a GPU are tuned"),
    Stage("telling", 20.0, "the most telling problems: latency, joules, share of the ceilings"),
    Stage("profile", 8.0, "Nsight Compute on the winners, beside the model of L2", cuda_only="ncu sees GPUs alone"),
    Stage("bench", 24.0, "the same problems over several launches, with an A/A pair"),
    Stage("conformance", 10.0, "every backend on the cases that all must get right"),
    Stage("memory", 6.0, "compute-sanitizer on our kernels", cuda_only="compute-sanitizer watches GPUs alone"),
    Stage("conclusion", 4.0, "policy, report and baseline", least_seconds=25.0),
)
LAST = STAGES[-1]
# Of what the last stage needs, what is kept for it: the stage before may be long in ending.
_RESERVED = 1.2


def share(to_come: Sequence[Stage], left_seconds: float) -> float:
    """What the first of ``to_come`` may take of ``left_seconds``; 0 where that isn't worth its start."""
    stage, *others = to_come
    reserved = _RESERVED * LAST.least_seconds if LAST in others else 0.0
    left = max(0.0, left_seconds - reserved)
    weights = stage.weight + sum(each.weight for each in others if each is not LAST)
    mine = min(left, max(stage.least_seconds, left * stage.weight / weights))
    return mine if mine >= stage.least_seconds else 0.0
