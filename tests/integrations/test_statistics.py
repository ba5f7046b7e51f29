"""What ``steer(…, stats=True)`` records, against attention matrices written out."""

import pytest
import torch
import transformers
from tiny_models import DECODED, LENGTH, STRENGTH, build, saliency, tokens

from rls_bench.errors import BackendUnsupported
from rls_bench.integrations.transformers import steer
from rls_bench.steering import Gate
from rls_bench.steering.schedule import target_mass

GREEDY = {"max_new_tokens": DECODED, "do_sample": False, "eos_token_id": None}
SPAN = (torch.arange(LENGTH) % 4 == 1).float()[None]


def by_matrix(model, ids, bias, strengths: torch.Tensor) -> torch.Tensor:
    """[5, layers, B, Hq] of the last query, from the model's queries and keys under steering by ``strengths`` [Hq]."""
    columns = []

    def attend(module, query, key, value, attention_mask, scaling=None, **options):
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ keys.mT * scaling + attention_mask
        added = torch.nn.functional.pad(bias, (0, scores.shape[-1] - bias.shape[1]))[:, None, None]
        plain = scores.log_softmax(-1)
        steered = (scores + strengths[:, None, None] * added).log_softmax(-1)
        last, moved = plain[:, :, -1].double(), steered[:, :, -1].double()
        one, two, b = last.exp(), moved.exp(), added[:, :, 0].double()
        hidden = one > 0
        entropy, entropy_steered = (-(p * p.clamp_min(1e-300).log()).sum(-1) for p in (one, two))
        kl = (two * (moved - last)).where(hidden, 0).sum(-1)
        columns.append(torch.stack([entropy, entropy_steered, kl, (one * b).sum(-1), (two * b).sum(-1)]))
        return (steered.exp() @ values).transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register("by_matrix", attend)
    transformers.AttentionMaskInterface.register("by_matrix", transformers.masking_utils.eager_mask)
    before = model.config._attn_implementation
    model.config._attn_implementation = "by_matrix"
    model(ids, use_cache=False)
    model.config._attn_implementation = before
    return torch.stack(columns, 1).float()


@pytest.mark.parametrize("bias", [SPAN, saliency(1)], ids=["span", "graded"])
@pytest.mark.parametrize("family", ["llama", "mistral"])
@torch.no_grad()
def test_statistics_are_those_of_the_matrices(family, bias):
    model, ids = build(family), tokens(2, LENGTH)
    with steer(model, bias=bias, strength=STRENGTH, stats=True) as control:
        answer = model.generate(ids, **GREEDY)
    assert [passed.step for passed in control.stats] == list(range(DECODED))
    strengths = torch.full((4,), STRENGTH)
    for step in (0, DECODED - 1):
        wanted = by_matrix(model, answer[:, : LENGTH + step], bias, strengths)
        torch.testing.assert_close(torch.stack(control.stats[step][1:]), wanted, atol=2e-4, rtol=1e-3)
    assert control.stats.stacked("kl").shape == (DECODED, 2, 2, 4)


@torch.no_grad()
def test_heads_and_layers_that_are_not_steered_say_so():
    model, ids = build("llama"), tokens(1, LENGTH)
    heads = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0] * 4])
    with steer(model, bias=SPAN, strength=STRENGTH, heads=heads, stats=True) as control:
        model(ids)
    (passed,) = control.stats
    wanted = by_matrix(model, ids, SPAN, STRENGTH * heads[0])[:, 0]
    found = torch.stack(passed[1:])
    torch.testing.assert_close(found[:3, 0], wanted[:3], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(found[3:, 0][..., [0, 2]], wanted[3:][..., [0, 2]], atol=2e-4, rtol=1e-3)
    assert found[3:, 0][..., [1, 3]].isnan().all()
    assert found[:, 1].isnan().all()


@torch.no_grad()
def test_a_target_mass_is_seen_reached_and_a_shut_gate_moves_nothing():
    model, ids = build("llama"), tokens(2, LENGTH)
    padding = torch.tensor([[1] * LENGTH, [0] * 3 + [1] * (LENGTH - 3)])
    with steer(model, bias=SPAN, schedule=target_mass(0.6), stats=True, backend="eager") as control:
        model(ids, attention_mask=padding)
    torch.testing.assert_close(control.stats[0].mass_steered, torch.full((2, 2, 4), 0.6), atol=1e-3, rtol=0)
    with steer(model, bias=SPAN, gate=Gate(threshold=2.0), stats=True, backend="eager") as control:
        model(ids, attention_mask=padding)
    assert (control.stats[0].kl == 0).all()


def test_statistics_want_a_backend_that_has_them():
    model = build("llama")
    with pytest.raises(BackendUnsupported, match="sdpa-cpu"), steer(model, bias=SPAN, stats=True, backend="sdpa-cpu"):
        model(tokens(1, LENGTH))
    with steer(model, bias=SPAN) as control:
        model(tokens(1, LENGTH))
    assert control.stats is None


@torch.no_grad()
def test_batches_that_differ_are_not_stacked():
    model = build("llama")
    with steer(model, bias=SPAN, stats=True) as control:
        model(tokens(1, LENGTH))
        model(tokens(2, LENGTH))
    with pytest.raises(ValueError, match=r"got batches \[1, 2\]"):
        control.stats.stacked("kl")
