import pytest
import torch

from rls_bench.integrations.control import Control
from rls_bench.integrations.passes import Arguments
from rls_bench.integrations.visibility import Visibility, read_mask
from rls_bench.steering import Gate
from rls_bench.steering.schedule import step, target_mass

HEADS = torch.ones(1, 4)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spans_mass(control: Control, visibility: Visibility, queries: int, keys: int = 10) -> torch.Tensor:
    """Attention mass on the span [B, Hq, Lq]: the output where the values are the span's indicator."""
    query, key = drawn(2, 4, queries, 8), drawn(2, 2, keys, 8, seed=1) * 2
    value = torch.zeros(2, 2, keys, 8)
    value[:, :, 2:5] = 1
    control.begin(2, queries, keys, Arguments(past=keys - queries))
    return control.attend(control.current, 0, query, key, value, visibility, None)[..., 0]


def sight(queries: int, valid: torch.Tensor | None = None, keys: int = 10) -> Visibility:
    """Causal, and ``valid`` keys alone."""
    visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    if valid is not None:
        visible = visible & valid[:, None, None]
    return read_mask(visible, torch.empty(2, 4, queries, 8), torch.empty(2, 2, keys, 8))


SPAN = ((torch.arange(10) >= 2) & (torch.arange(10) < 5)).float()[None]
LEFT_PADDED = torch.arange(10) >= torch.tensor([[0], [3]])


def test_target_mass_is_reached_wherever_the_span_and_more_are_visible():
    control = Control(SPAN, 1.0, HEADS, schedule=target_mass(0.6), backend="eager")
    mass = spans_mass(control, sight(10), queries=10)
    assert (mass[:, :, :2] == 0).all()
    torch.testing.assert_close(mass[:, :, 2:], torch.full((2, 4, 8), 0.6), atol=1e-4, rtol=0)


def test_target_mass_counts_no_padding():
    control = Control(SPAN, 1.0, HEADS, schedule=target_mass(0.6), backend="eager")
    for queries in (1, 4):
        mass = spans_mass(control, sight(queries, LEFT_PADDED), queries)
        torch.testing.assert_close(mass, torch.full((2, 4, queries), 0.6), atol=1e-4, rtol=0)


def test_target_mass_keeps_to_the_chosen_heads():
    heads = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    unsteered = spans_mass(Control(SPAN, 1e-9, HEADS, backend="eager"), sight(1), queries=1)
    chosen = Control(SPAN, 1.0, heads, schedule=target_mass(0.6), backend="eager")
    mass = spans_mass(chosen, sight(1), queries=1)
    torch.testing.assert_close(mass[:, 1], torch.full((2, 1), 0.6), atol=1e-4, rtol=0)
    torch.testing.assert_close(mass[:, [0, 2, 3]], unsteered[:, [0, 2, 3]])


@pytest.mark.parametrize("queries", [1, 10])
@pytest.mark.parametrize("valid", [None, LEFT_PADDED])
def test_a_gate_reads_disagreement_off_visible_keys_alone(queries, valid):
    bias = drawn(1, 10, seed=3)
    gate = Gate(threshold=0.5)
    control = Control(bias, 1.0, HEADS, gate=gate, backend="eager")
    steered = spans_mass(control, sight(queries, valid), queries)

    # By the matrix: attention, its expected saliency, and the range of saliency that each query sees.
    query, key = drawn(2, 4, queries, 8), (drawn(2, 2, 10, 8, seed=1) * 2).repeat_interleave(2, 1)
    visible = torch.ones(queries, 10, dtype=torch.bool).tril(10 - queries)[None]
    visible = visible & (LEFT_PADDED if valid is not None else torch.ones(2, 10, dtype=torch.bool))[:, None]
    scores = (query @ key.mT / 8**0.5).masked_fill(~visible[:, None], -torch.inf)
    attention = scores.softmax(-1).nan_to_num(0)
    expected = (attention * bias).sum(-1)
    high = bias.expand(2, queries, 10).masked_fill(~visible, -torch.inf).amax(-1)[:, None]
    low = bias.expand(2, queries, 10).masked_fill(~visible, torch.inf).amin(-1)[:, None]
    # A single visible key leaves nothing to disagree about; a query of padding sees none.
    disagreement = ((high - expected) / (high - low)).where(visible.sum(-1)[:, None] > 1, torch.tensor(0.0))
    openness = (disagreement > 0.5).float()
    gated = (scores + openness[..., None] * bias).softmax(-1).nan_to_num(0)
    torch.testing.assert_close(steered, gated[..., 2:5].sum(-1), atol=1e-5, rtol=1e-4)
    counted = visible.any(-1)[:, None].expand(-1, 4, -1) if valid is not None and queries > 1 else openness >= 0
    assert control.share_steered == pytest.approx(float(openness[counted].mean()))


def test_steps_count_from_each_prompt():
    control, cache = Control(SPAN, 1.0, HEADS), Cache()
    steps = []
    for queries, past in [(10, 0), (1, 10), (1, 11), (10, 0), (1, 10)]:
        control.begin(2, queries, past + queries, Arguments(past, cache))
        steps.append(control.step)
    assert steps == [0, 1, 2, 0, 1]


class Cache:
    """Anything that passes of one stream have in common."""


def test_prompts_read_in_turns_keep_their_own_steps():
    control, caches = Control(SPAN, 1.0, HEADS), [Cache(), Cache()]
    steps = []
    for cache, queries, past in [(0, 10, 0), (1, 10, 0), (0, 1, 10), (1, 1, 10), (0, 1, 11)]:
        control.begin(1, queries, past + queries, Arguments(past, caches[cache]))
        steps.append(control.step)
    assert steps == [0, 0, 1, 1, 2]


def test_a_pass_over_prompt_and_answer_has_each_tokens_own_strength():
    control = Control(SPAN, 1.0, HEADS, schedule=step(1, 3, at=2))
    tokens = torch.arange(14)[None]
    for length in (10, 11, 12, 13):
        control.begin(1, length, length, Arguments(tokens=tokens[:, :length]))
    assert control.step == 3
    assert control.current.strengths[0].tolist() == [1] * 11 + [3, 3]


def test_a_gate_that_waits_a_step_wants_one_token_a_pass():
    control = Control(SPAN, 1.0, HEADS, gate=Gate(lagged=True), backend="eager")
    tokens = torch.arange(11)[None]
    control.begin(1, 10, 10, Arguments(tokens=tokens[:, :10]))
    with pytest.raises(ValueError, match="waits a step wants a cache"):
        control.begin(1, 11, 11, Arguments(tokens=tokens))


def test_keys_that_a_cache_dropped_without_saying_so_are_named():
    control = Control(SPAN, 1.0, HEADS)
    control.begin(1, 1, 13, Arguments(past=12, cache=Cache()))
    with pytest.raises(ValueError, match="wanted those of all 13 tokens"):
        control.current.bias(0, torch.empty(1, 2, 6, 8))
    control.begin(1, 1, 13, Arguments(past=12, cache=Cache(), offsets={0: 4}))
    assert control.current.bias(0, torch.empty(1, 2, 9, 8)).tolist() == [1, *[0] * 8]
