"""Is it right: every backend against a float64 oracle, before anything is timed."""

from rls_bench.agreement.judgement import (
    Answer,
    Truth,
    ask,
    check,
    gradients,
    inputs_for,
    judge,
    oracle,
    oracle_gradients,
    poisoned_heap,
    poisoned_memory,
    relative_error,
    sample_rows,
    truth,
    truths,
    verdict,
)

__all__ = [
    "Answer",
    "Truth",
    "ask",
    "check",
    "gradients",
    "inputs_for",
    "judge",
    "oracle",
    "oracle_gradients",
    "poisoned_heap",
    "poisoned_memory",
    "relative_error",
    "sample_rows",
    "truth",
    "truths",
    "verdict",
]
