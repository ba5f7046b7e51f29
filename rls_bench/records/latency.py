"""The latencies of a run's records, each judged with the help of the run's other cells."""

from __future__ import annotations

from collections.abc import Iterable

from rls_bench.records.record import Question, Record
from rls_bench.records.statistics import Estimate, Interval, blur, estimates, log_medians, looked

_Name = tuple[str, str, str, str, Question]


class Latencies:
    """Estimates of every record's latencies; cells of one run, machine and question are taken to scatter alike."""

    def __init__(self, records: Iterable[Record]) -> None:
        units: dict[_Name, list[float]] = {}
        blurs: dict[_Name, float] = {}
        for entry in records:
            for question, launches in entry.samples_ns.items():
                usable = [samples for samples in launches if samples and min(samples) > 0]
                if usable:
                    name = _name(entry, question)
                    units[name], blurs[name] = log_medians(usable), blur(usable)
        self._estimates = estimates(units, blurs, {name: (name[0], name[1], name[4]) for name in units})

    def estimate(self, record: Record, question: Question) -> Estimate | None:
        """Of one label's launches; None where it has no usable sample."""
        return self._estimates.get(_name(record, question))

    def interval(self, record: Record, question: Question) -> Interval | None:
        """At 95 %, in nanoseconds, wider where sampling stopped because it was narrow."""
        found = self.estimate(record, question)
        if found is None:
            return None
        return found.interval(looked(0.95, record.looks) if record.stopped == "interval" else 0.95)


def _name(record: Record, question: Question) -> _Name:
    return record.run, record.machine.fingerprint, record.problem.key, record.label, question
