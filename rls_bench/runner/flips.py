"""Where the answer hangs on the question: another backend wins with cold caches, or in a graph, than with warm ones."""

from __future__ import annotations

from collections.abc import Iterable

from rls_bench.records.record import Question, Record
from rls_bench.records.statistics import median_interval, ratio_interval


def flips(records: Iterable[Record]) -> list[str]:
    """One line for each problem and question whose winner differs, beyond doubt at 95 %, from the warm one."""
    by_problem: dict[str, list[Record]] = {}
    for entry in records:
        if entry.status == "ok" and entry.label == entry.backend and "warm" in entry.samples_ns:
            by_problem.setdefault(entry.problem.key, []).append(entry)
    found = []
    for entries in by_problem.values():
        warmest = _winner(entries, "warm")
        questions = dict.fromkeys(question for entry in entries for question in entry.samples_ns if question != "warm")
        for question in questions:
            asked = [entry for entry in entries if question in entry.samples_ns]
            winner = _winner(asked, question)
            if warmest in asked and winner is not warmest and _is_faster(winner, warmest, question):
                found.append(
                    f"{winner.problem.title}: {warmest.label} is fastest warm, but {winner.label} is {question}; "
                    "choose by how it will be called"
                )
    return found


def _winner(entries: list[Record], question: Question) -> Record:
    return min(entries, key=lambda entry: median_interval(entry.samples_ns[question]).median)


def _is_faster(one: Record, other: Record, question: Question) -> bool:
    return ratio_interval(other.samples_ns[question], one.samples_ns[question], 0.95).high < 1
