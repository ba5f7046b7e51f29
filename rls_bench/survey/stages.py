"""The stages of a survey in the order of their value, and what each may take of the time that is left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One step, run as ``python -m rls_bench.survey.work NAME …`` in a process of its own.

    ``weight`` shares out the time that is left among the stages still to come. ``beside``: it starts with the survey
    and works beside the first stages, which measure nothing. ``cuda_only`` is why it doesn't run elsewhere.
    """

    name: str
    weight: float
    about: str
    beside: bool = False
    cuda_only: str = ""


STAGES = (
    Stage("compile", 0.0, "kernels of the telling problems, compiled on all cores", beside=True),
    Stage("doctor", 2.0, "the machine, its versions, what is missing"),
    Stage("agreement", 12.0, "every backend against the oracle, on cases that reach every branch"),
    Stage("tuning", 8.0, "block sizes of our prefill kernel", cuda_only="only kernels on a GPU are tuned"),
    Stage("telling", 20.0, "the most telling problems: latency, joules, share of the ceilings"),
    Stage("profile", 8.0, "Nsight Compute on the winners, beside the model of L2", cuda_only="ncu sees GPUs alone"),
    Stage("bench", 24.0, "the same problems over several launches, with an A/A pair"),
    Stage("conformance", 10.0, "every backend on the cases that all must get right"),
    Stage("memory", 6.0, "compute-sanitizer on our kernels", cuda_only="compute-sanitizer watches GPUs alone"),
    Stage("conclusion", 4.0, "policy, report and baseline"),
)
# Kept for the last stage, whatever the others take.
LAST_SECONDS = 25.0
# With less than this a stage isn't worth its start.
LEAST_SECONDS = 8.0


def share(stage: Stage, to_come: list[Stage], left_seconds: float) -> float:
    """What ``stage`` may take of ``left_seconds``, with all of ``to_come`` (itself the first) still to run."""
    if stage is STAGES[-1]:
        return left_seconds
    others = [each for each in to_come if each is not STAGES[-1]]
    reserved = LAST_SECONDS if STAGES[-1] in to_come else 0.0
    return max(0.0, left_seconds - reserved) * stage.weight / sum(each.weight for each in others)
