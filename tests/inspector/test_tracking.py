import math

from inspector.found import PER_QUERY, STEERED, UNSTEERED, inspection

from rls_bench.inspector import tracking


def test_the_tracked_cases_are_prefills_plain_ones(monkeypatch):
    asked = []

    def inspected(cases, workers, cache):
        asked.extend(cases)
        return [
            inspection(UNSTEERED),
            inspection(STEERED, instructions=11.0),
            inspection(PER_QUERY, error="Triton cannot compile it", hot_loops=[]),
        ]

    monkeypatch.setattr(tracking, "inspect_all", inspected)
    found = tracking.instructions_per_score(["sm_80"], [64])
    assert [case.variant for case in asked] == [UNSTEERED, STEERED, PER_QUERY]
    assert (found["sm_80", 64, "none"], found["sm_80", 64, "scalar"]) == (10.0, 11.0)
    assert math.isnan(found["sm_80", 64, "bhq"])
