import pytest
import torch

from rls_bench.integrations.passes import Arguments, Stream


class Cache:
    """Anything that passes of one stream have in common."""


CACHE = Cache()


def read(passes: list[tuple[int, int]], prompt: int = 10, ahead: tuple[int, ...] = (), pad_bias: bool = False):
    """The steps of each pass, given as (tokens read before, tokens)."""
    stream, steps = Stream(), []
    for place, (past, queries) in enumerate(passes):
        proposed = ahead[place] if place < len(ahead) else 0
        stream.read(queries, Arguments(past, CACHE, ahead=proposed), prompt, pad_bias)
        steps.append(list(stream.steps(queries)))
    return steps


def test_a_prompts_steps_are_0_however_it_is_read():
    assert read([(0, 10), (10, 1), (11, 1)]) == [[0] * 10, [1], [2]]
    assert read([(0, 4), (4, 4), (8, 2), (10, 1)])[-2:] == [[0, 0], [1]]
    assert read([(0, 9), (9, 1), (10, 1)])[1:] == [[0], [1]]
    assert read([(past, 1) for past in range(12)]) == [[0]] * 10 + [[1], [2]]


def test_a_cache_that_was_read_before_counts_on_from_it():
    assert read([(12, 1), (13, 1)]) == [[3], [4]]
    # The next turn of a conversation is a prompt, too.
    assert read([(12, 5), (17, 1)]) == [[0] * 5, [1]]
    assert read([(0, 10), (10, 1), (11, 4), (15, 1)])[2:] == [[0] * 4, [1]]


def test_proposed_tokens_are_no_prompt():
    assert read([(0, 13), (12, 4), (14, 3)], ahead=(3, 3, 2)) == [[0] * 10 + [1, 2, 3], [3, 4, 5, 6], [5, 6, 7]]


def test_without_a_cache_steps_are_those_with_one():
    stream, tokens = Stream(), torch.arange(12)[None]
    for length in (10, 11, 12):
        assert length == 10 or stream.grows(length, Arguments(tokens=tokens[:, :length]))
        stream.read(length, Arguments(tokens=tokens[:, :length]), 10, pad_bias=False)
    assert list(stream.steps(12)) == [0] * 10 + [1, 2]
    assert not stream.grows(13, Arguments(tokens=torch.arange(1, 14)[None]))
    assert not stream.grows(14, Arguments(tokens=torch.arange(14)[None]))


@pytest.mark.parametrize(
    ("passes", "came"),
    [
        ([(0, 12)], "prompt, 12; got 10"),
        ([(0, 4), (4, 4), (8, 4)], "prompt, 12; got 10"),
        ([(0, 10), (10, 4)], "prompt, 14; got 10"),
        ([(7, 5)], "prompt, 12; got 10"),
        ([(0, 7), (7, 1)], "prompt, 7; got 10"),
        ([(7, 1)], "prompt, 7; got 10"),
    ],
)
def test_a_bias_of_another_prompt_is_named(passes, came):
    with pytest.raises(ValueError, match=came):
        read(passes)


def test_shorter_biases_may_be_asked_for_and_are_taken_in_training():
    assert read([(0, 12), (12, 1)], pad_bias=True) == [[0] * 12, [1]]
    stream = Stream()
    stream.read(12, Arguments(training=True), 10, pad_bias=False)
    assert stream.prompt == 12
