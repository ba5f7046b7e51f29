"""Where the answer hangs on the question: another backend wins with cold caches, or in a graph, than with warm ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rls_bench.records.latency import Latencies
from rls_bench.records.record import Question, Record

# Chance that a run of backends that are all alike, under some question or under all, tells any flip.
FALSE_FLIPS = 0.05


@dataclass(frozen=True)
class Flip:
    """On one problem, ``warm`` is fastest with warm caches and ``other`` under ``question``."""

    record: Record
    warm: str
    other: str
    question: Question

    @property
    def title(self) -> str:
        """One line."""
        told = f"{self.warm} is fastest warm, but {self.other} is {self.question}"
        return f"{self.record.problem.title}: {told}; choose by how it will be called"


def flips(records: Iterable[Record]) -> list[Flip]:
    """Problems and questions whose winner differs, beyond doubt, from the warm one.

    Both must be: that the warm winner is faster warm, and that the other is under its question. Each is a winner
    because it was looked for among its rivals, so its p-value counts as often as there are rivals, and all problems
    and questions are judged together (Benjamini and Hochberg, 1995).
    """
    # A second of imports, which a run pays at its end.
    from scipy.stats import false_discovery_control

    entries = [entry for entry in records if entry.status == "ok" and entry.label == entry.backend]
    latencies = Latencies(entries)
    by_problem: dict[tuple[str, str], list[Record]] = {}
    for entry in entries:
        if entry.stopped != "raced" and latencies.estimate(entry, "warm"):
            by_problem.setdefault((entry.machine.fingerprint, entry.problem.key), []).append(entry)
    found: list[tuple[float, Flip]] = []
    for rivals in by_problem.values():
        questions = dict.fromkeys(question for entry in rivals for question in entry.samples_ns if question != "warm")
        for question in questions:
            asked = [entry for entry in rivals if latencies.estimate(entry, question)]
            warmest, winner = _winner(asked, latencies, "warm"), _winner(asked, latencies, question)
            doubt = max(_doubt(winner, warmest, latencies, "warm"), _doubt(warmest, winner, latencies, question))
            chance = min(1.0, doubt * (len(asked) - 1)) if winner is not warmest else 1.0
            found.append((chance, Flip(winner, warmest.backend, winner.backend, question)))
    if not found:
        return []
    judged = false_discovery_control([chance for chance, _ in found])
    return [flip for (_, flip), chance in zip(found, judged, strict=True) if chance < FALSE_FLIPS]


def _winner(entries: list[Record], latencies: Latencies, question: Question) -> Record:
    return min(entries, key=lambda entry: latencies.estimate(entry, question).mean)  # type: ignore[union-attr]


def _doubt(slower: Record, faster: Record, latencies: Latencies, question: Question) -> float:
    """How likely ``slower`` comes out this much slower where it isn't."""
    one, other = latencies.estimate(slower, question), latencies.estimate(faster, question)
    return 1.0 if one is None or other is None else one.over(other).chance_above()
