import pytest

from rls_bench.backends import registry
from rls_bench.backends.interface import Backend, no
from rls_bench.errors import BackendUnavailable, BackendUnsupported, UnknownBackend
from rls_bench.steering import overhead


@pytest.mark.parametrize(
    ("low", "middle", "high", "wanted"),
    [
        (-0.4, 2.36, 5.0, "what steering adds can't be told from nothing"),
        (1.0, 2.36, 5.0, "steering adds 2.36 ms"),
        (-5.0, -2.36, -1.0, "steering takes off 2.36 ms"),
    ],
)
def test_only_an_interval_without_0_says_what_steering_adds(low, middle, high, wanted):
    cost = overhead.Overhead("cpu", "B1", 21, 10.0, 10.0 + middle, middle, low, high)
    assert cost.words.startswith(wanted)
    assert f"95 % interval {low:.2f} to {high:.2f} ms" in cost.words


def test_overhead_is_measured_in_turns():
    cost = overhead.measure("sdpa-cpu", heads=1, length=32, head_dim=16, rounds=5)
    assert cost.rounds == 5
    assert min(cost.steered_ms, cost.unsteered_ms) > 0
    assert cost.added_low_ms <= cost.added_ms <= cost.added_high_ms


class Nowhere(Backend):
    name = "sdpa-nowhere"

    def measurable(self):
        return no("needs a moon")


class Nothing(Backend):
    name = "sdpa-nothing"

    def supports(self, problem):
        return no("does nothing")


def test_a_backend_that_cannot_is_refused(monkeypatch):
    for backend in (Nowhere(), Nothing()):
        monkeypatch.setitem(registry.LOADED, backend.name, backend)
    with pytest.raises(UnknownBackend):
        overhead.measure("nothing", heads=1, length=8)
    with pytest.raises(BackendUnavailable, match="needs a moon"):
        overhead.measure("sdpa-nowhere", heads=1, length=8)
    with pytest.raises(BackendUnsupported, match="sdpa-nothing' cannot do"):
        overhead.measure("sdpa-nothing", heads=1, length=8)
