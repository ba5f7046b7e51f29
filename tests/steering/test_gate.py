import math

import pytest
import torch

from rls_bench.backends.interface import AttentionStats
from rls_bench.steering import gate
from rls_bench.steering.gate import Gate, GateMeter


def test_output_entropy_runs_from_sure_to_no_idea():
    logits = torch.tensor([[100.0, 0, 0, 0], [0, 0, 0, 0], [-math.inf, 0, -math.inf, -math.inf]])
    torch.testing.assert_close(gate.output_entropy(logits), torch.tensor([0.0, 1.0, 0.0]))


def test_output_doubt_is_one_at_a_tie():
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]).log()
    torch.testing.assert_close(gate.output_doubt(logits), torch.tensor([0.5, 1.0]))


def test_expected_saliency_comes_from_row_statistics():
    z = torch.randn(1, 2, 3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    steered = z + 0.7 * bias
    attention = z.softmax(-1)
    kl = (attention * (z.log_softmax(-1) - steered.log_softmax(-1))).sum(-1)
    stats = AttentionStats(z.logsumexp(-1), steered.logsumexp(-1), kl, kl, kl)
    torch.testing.assert_close(gate.expected_saliency(stats, 0.7), (attention * bias).sum(-1))


def test_disagreement_is_zero_on_the_most_salient_key_and_one_on_the_least():
    bias = torch.tensor([-1.0, 0.0, 3.0])
    expected = torch.tensor([[3.0, 1.0, -1.0]])
    torch.testing.assert_close(gate.disagreement(expected, bias), torch.tensor([[0.0, 0.5, 1.0]]))


def test_disagreement_looks_only_at_visible_keys():
    bias = torch.tensor([0.0, 1.0, 9.0])
    visible = torch.ones(3, 3, dtype=torch.bool).tril()
    torch.testing.assert_close(
        gate.disagreement(torch.tensor([0.0, 1.0, 1.0]), bias, visible), torch.tensor([0.0, 0.0, 8 / 9])
    )


def test_a_hard_gate_is_open_or_shut():
    assert Gate(threshold=0.5).openness(torch.tensor([0.4, 0.5, 0.6])).tolist() == [0, 0, 1]


def test_a_soft_gate_is_half_open_at_its_threshold():
    openness = Gate(threshold=0.5, softness=0.1).openness(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(openness, torch.tensor([-5.0, 0.0, 5.0]).sigmoid())


def test_the_meter_reports_the_share_steered():
    meter = GateMeter()
    assert meter.share is None
    meter.add(torch.tensor([1.0, 0.0]))
    meter.add(torch.tensor([1.0, 1.0]))
    assert meter.share == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signal": "entrpy"}, "signal: wanted one of entropy, margin, disagreement; got 'entrpy'"),
        ({"threshold": float("nan")}, "threshold, softness"),
        ({"softness": -0.1}, "threshold, softness"),
        ({"initial": 2.0}, "initial: wanted a number from 0"),
    ],
)
def test_a_gate_that_could_not_decide_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Gate(**options)
