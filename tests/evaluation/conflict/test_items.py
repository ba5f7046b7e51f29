import pytest
from word_tokenizer import WordTokenizer

from rls_bench.evaluation.conflict.items import SENTENCES, generate, tokenize


def test_items_differ_and_are_balanced():
    items = generate(240)
    assert len({(item.topic, item.speakers, item.values) for item in items}) == 240
    assert sum(item.highlighted for item in items) == 120
    assert all(item.values[0] != item.values[1] and item.speakers[0] != item.speakers[1] for item in items)


def test_either_half_has_every_topic_equally_often():
    items = generate(240)
    for half in (items[:120], items[120:]):
        counts = {topic: sum(item.topic is topic for item in half) for topic in {item.topic for item in items}}
        assert set(counts.values()) == {15}


def test_a_seed_gives_its_items_again():
    assert generate(30, seed=1) == generate(30, seed=1) != generate(30, seed=2)


def test_spans_cover_the_sentences_of_the_speakers():
    tokenizer = WordTokenizer()
    item = generate(1)[0]
    (tokens,) = tokenize([item], tokenizer)
    said = {
        span: tokenizer.decode(tokens.conversation[0][tokens.sentence[0] == place])
        for place, span in enumerate(SENTENCES)
    }
    mine, other = item.highlighted, 1 - item.highlighted
    assert said["highlighted"].startswith(f"{item.speakers[mine]} said")
    assert f" {item.values[mine]}." in said["highlighted"]
    assert f" {item.values[other]}." in said["wrong"]
    assert said["neutral"].startswith("They met")
    assert [tokenizer.decode(answer[None]) for answer in tokens.answers[0]] == [
        f" {item.values[mine]}",
        f" {item.values[other]}",
    ]


def test_batches_hold_items_of_one_length():
    batches = tokenize(generate(40), WordTokenizer())
    assert sum(len(batch.answers) for batch in batches) == 40
    assert all(batch.sentence.shape == batch.conversation.shape for batch in batches)


def test_an_answer_of_several_tokens_is_refused():
    class LetterTokenizer(WordTokenizer):
        def __call__(self, text, add_special_tokens=True):
            return type("Encoding", (), {"input_ids": [ord(letter) for letter in text]})

    with pytest.raises(ValueError, match="wanted one token"):
        tokenize(generate(1), LetterTokenizer())
