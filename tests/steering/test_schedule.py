import pytest
import torch

from rls_bench.steering import schedule
from rls_bench.steering.schedule import Position


def over_steps(chosen, steps=6):
    return [round(chosen(Position(0, 4, step)), 6) for step in range(steps)]


def over_layers(chosen, layers=5):
    return [round(chosen(Position(layer, layers, 0)), 6) for layer in range(layers)]


def test_constant():
    assert over_steps(schedule.constant(0.5)) == [0.5] * 6


def test_linear_reaches_its_end_and_stays():
    assert over_steps(schedule.linear(1, 0, length=5)) == [1, 0.75, 0.5, 0.25, 0, 0]
    assert over_layers(schedule.linear(0, 1, over="layer")) == [0, 0.25, 0.5, 0.75, 1]


def test_cosine_is_flat_at_both_ends():
    values = over_steps(schedule.cosine(1, 0, length=5))
    assert values == [1, 0.853553, 0.5, 0.146447, 0, 0]


def test_step_changes_once():
    assert over_steps(schedule.step(1, 0, at=2)) == [1, 1, 0, 0, 0, 0]
    assert over_layers(schedule.step(0, 2, at=3, over="layer")) == [0, 0, 0, 2, 2]


def test_per_layer_takes_all_layers_or_some():
    assert over_layers(schedule.per_layer([5, 4, 3, 2, 1])) == [5, 4, 3, 2, 1]
    assert over_layers(schedule.per_layer({1: 2.0})) == [0, 2, 0, 0, 0]
    with pytest.raises(ValueError, match="each of 5 layers, got 2"):
        over_layers(schedule.per_layer([1, 2]))


def test_a_schedule_over_steps_needs_a_length():
    with pytest.raises(ValueError, match="number of decoding steps"):
        over_steps(schedule.linear(1, 0))


def test_mass_schedules_turn_mass_into_strength():
    mass = torch.tensor([0.2, 0.8])
    assert schedule.target_mass(0.5).rule(mass).sign().tolist() == [1, -1]
    assert schedule.spotlight_mass(0.5).rule(mass).sign().tolist() == [1, 0]
