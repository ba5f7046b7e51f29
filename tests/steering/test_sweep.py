import itertools

import pytest
import torch

from rls_bench.steering import metrics, sweep
from rls_bench.steering.sweep import PUBLISHED, Row, Settings, Sweep

SMALL = Settings(length=48, heads=5, seeds=(0, 4), strengths=(0.0, 0.5, 2.0), logit_scale=1.0)


def written_out(settings: Settings, seed: int) -> list[tuple[float, float]]:
    """The experiment as published, every tensor whole."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.randn(settings.length, generator=generator).abs()
    saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min() + 1e-12)
    scores = torch.randn(settings.heads, settings.length, settings.length, generator=generator) * settings.logit_scale
    base = scores.softmax(-1)
    rows = []
    for strength in settings.strengths:
        steered = (torch.log(base + settings.eps) + strength * saliency).softmax(-1)
        reduction = metrics.entropy_reduction_percent(metrics.entropy(base), metrics.entropy(steered))
        rows.append((reduction, float(metrics.kl_divergence(base, steered).mean())))
    return rows


def test_streaming_matches_the_experiment_written_out():
    result = sweep.run(SMALL)
    for seed in SMALL.seeds:
        got = [(row.entropy_reduction_percent, row.kl) for row in result.seed_rows[seed]]
        torch.testing.assert_close(torch.tensor(got), torch.tensor(written_out(SMALL, seed)), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("heads", "length"), list(itertools.product([1, 2, 5, 16, 18, 33], [1, 2, 3, 5, 8])))
def test_scores_in_blocks_equal_one_draw(heads, length):
    settings = Settings(length=length, heads=heads, logit_scale=1.0)
    blocks = list(sweep._score_blocks(settings, torch.Generator().manual_seed(3)))
    whole = torch.randn(heads, length, length, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat(blocks), whole)


def test_the_published_length_is_never_held_whole():
    blocks = sweep._score_blocks(Settings(), torch.Generator().manual_seed(0))
    assert next(blocks).shape == (1, 1024, 1024)


def test_a_backends_statistics_give_the_same_rows_without_the_matrix():
    by_matrix = sweep.run(SMALL)
    by_backend = sweep.run(Settings(**{**vars(SMALL), "backend": "eager"}))
    for ours, theirs in zip(by_backend.rows, by_matrix.rows, strict=True):
        assert ours.entropy_reduction_percent == pytest.approx(theirs.entropy_reduction_percent, abs=2e-3)
        assert ours.kl == pytest.approx(theirs.kl, abs=2e-5)


def test_random_operands_have_the_spread_asked_for():
    settings = Settings(length=256, heads=2, logit_scale=0.3, backend="eager", head_dim=64)
    blocks = list(sweep._operand_blocks(settings, torch.Generator().manual_seed(0)))
    assert len(blocks) == 2
    query, key, scale = blocks[0]
    assert query.shape == (1, 1, 256, 64)
    assert float((query @ key.mT * scale).std()) == pytest.approx(0.3, rel=0.05)


def test_monotone_is_checked_for_every_seed():
    rising = [Row(0.0, 0.0, 0.0), Row(1.0, 1.0, 1.0), Row(-1.0, 5.0, 5.0)]
    dented = [Row(0.0, 0.0, 0.0), Row(1.0, -0.1, 1.0), Row(2.0, 3.0, 2.0)]
    assert Sweep(SMALL, rising, {0: rising}).monotone("kl")
    result = Sweep(SMALL, rising, {0: rising, 1: dented})
    assert result.monotone("kl")
    assert not result.monotone("entropy_reduction_percent")


def test_rows_print_as_the_publication_does():
    assert Row(0.25, 0.01248, 0.00085208).printed() == ("0.25", "0.0125", "0.000852")
    assert Row(0.0, -1e-7, -2e-9).printed() == ("0.00", "0.0000", "0.000000")


@pytest.mark.slow
def test_all_published_figures_come_out_as_printed():
    assert tuple(row.printed() for row in sweep.run(Settings()).rows) == PUBLISHED


def test_one_published_seed_lies_near_the_table():
    # The whole table is the slow test above; two strengths of one seed with few heads show a gross error at once.
    result = sweep.run(Settings(heads=2, seeds=(0,), strengths=(0.25, 1.0)))
    assert [row.kl for row in result.rows] == pytest.approx([0.000852, 0.014284], rel=0.2)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sweep.run(Settings(length=8, heads=1, seeds=(0,)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"length": 0}, "length"),
        ({"heads": 0}, "heads"),
        ({"seeds": ()}, "seeds"),
        ({"strengths": (float("nan"),)}, "strengths"),
        ({"eps": -1.0}, "eps"),
        ({"logit_scale": float("inf")}, "logit_scale"),
        ({"normalize": "softmax"}, "normalize"),
        ({"head_dim": 64}, "head_dim"),
    ],
)
def test_bad_settings_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Settings(**arguments)
