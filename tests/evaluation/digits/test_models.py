import pytest
import torch

from rls_bench.evaluation.digits import checkpoints, train
from rls_bench.evaluation.digits.answering import Scene, Steering
from rls_bench.evaluation.digits.grids import CELLS, SETS, draw, patches
from rls_bench.evaluation.digits.presence import cell_saliency
from rls_bench.evaluation.digits.reader import HEADS, LAYERS, GridReader, attend_apart
from rls_bench.steering import Gate

pytest.importorskip("sklearn")


def grids(name: str, count: int = 100, questions: int = 1):
    return draw(count, "calibration", SETS[name], torch.Generator().manual_seed(0), questions)


@pytest.fixture(scope="module")
def hard() -> Scene:
    reader, presence = checkpoints.load(0)
    return Scene.read(reader, presence, grids("hard", 200))


def test_checkpoints_are_small_and_load_as_float32():
    files = [checkpoints.FOLDER / f"seed_{seed}.safetensors" for seed in checkpoints.SEEDS]
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    reader, presence = checkpoints.load(1)
    assert sum(parameter.numel() for parameter in reader.parameters()) < 630_000
    assert sum(parameter.numel() for parameter in presence.parameters()) < 23_000
    assert reader.position.dtype == torch.float32


def test_a_seed_that_was_not_trained_is_refused():
    with pytest.raises(FileNotFoundError, match="seed_99"):
        checkpoints.load(99)


def test_saved_models_come_back_as_they_were(tmp_path):
    reader, presence = checkpoints.load(0)
    checkpoints.save(7, reader, presence, tmp_path)
    again, _ = checkpoints.load(7, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(reader.parameters(), again.parameters(), strict=True))


def test_questions_asked_together_are_answered_as_if_alone():
    torch.manual_seed(0)
    reader, batch = GridReader().eval(), grids("clean", 4, questions=3)
    with torch.no_grad():
        cache = reader.prefill(patches(batch.pixels))
        together = reader.answer(cache, batch.hues, attend_apart)
        alone = reader.answer(cache, batch.hues[:, 1:2], attend_apart)
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-4, atol=1e-5)


def test_saliency_points_at_the_cell_on_clean_grids():
    _, presence = checkpoints.load(0)
    batch = grids("clean")
    saliency = cell_saliency(presence, batch.pixels, batch.hues[:, 0])
    assert saliency.shape == (100, CELLS)
    assert saliency.min() >= 0
    assert (saliency.argmax(1) == batch.cells[:, 0]).float().mean() > 0.95


def test_strength_zero_answers_as_plain_attention_does(hard):
    answers = hard.answer(Steering(0.0, torch.ones(LAYERS, HEADS, dtype=torch.bool)))
    with torch.no_grad():
        plain = hard.reader.answer(hard.cache, hard.grids.hues, attend_apart)[:, 0].argmax(-1)
    assert torch.equal(answers.correct, plain == hard.grids.answers[:, 0])


def test_grounding_heads_gain_on_hard_grids_and_shuffled_saliency_does_not(hard):
    heads = hard.span_mass() >= 0.25
    assert heads[0].all()

    def accuracy(**options) -> float:
        return float(hard.answer(Steering(options.pop("strength", 4.0), heads, **options)).correct.float().mean())

    base = accuracy(strength=0.0)
    assert accuracy() > base + 0.08
    assert accuracy(control="oracle") > base + 0.08
    assert accuracy(control="shuffled") <= base
    assert abs(accuracy(control="uniform") - base) < 0.02


def test_an_eager_backend_answers_alike(hard):
    steering = Steering(4.0, hard.span_mass() >= 0.25)
    eager = Scene(hard.reader, hard.grids, hard.cache, hard.saliency, backend="eager")
    assert (eager.answer(steering).correct == hard.answer(steering).correct).float().mean() > 0.98


@pytest.mark.parametrize("signal", ["disagreement", "entropy", "margin"])
def test_gates_open_more_on_hard_grids_than_on_clean(hard, signal):
    clean = Scene.read(*checkpoints.load(0), grids("clean"))
    heads = hard.span_mass() >= 0.25
    gate = Gate(signal, float(clean.signal(Gate(signal), heads, clean.bias()).quantile(0.95)))
    shares = [float(scene.answer(Steering(4.0, heads, gate=gate)).openness.mean()) for scene in (clean, hard)]
    assert shares[0] <= 0.06
    assert shares[1] > shares[0] + 0.1


def test_training_twice_gives_the_same_models():
    one, two = (train.train_presence(0, steps=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    one, two = (train.train_reader(0, steps=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
