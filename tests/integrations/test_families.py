"""Steering in every family of models, and every way to read a prompt, against a plain reference."""

import pytest
import torch
import transformers
from tiny_models import DECODED, FAMILIES, LENGTH, SIZES, STRENGTH, build, defined, saliency, tokens, whole

from rls_bench.integrations.transformers import steer


def in_parts(model, ids: torch.Tensor, parts: list[int], cache, padding: torch.Tensor | None = None):
    """The same logits, read part by part through a cache."""
    logits, done = [], 0
    for part in parts:
        options = {}
        if padding is not None:
            options["attention_mask"] = padding[:, : done + part]
            options["position_ids"] = (padding.cumsum(-1) - 1).clamp_min(0)[:, done : done + part]
        logits.append(model(ids[:, done : done + part], past_key_values=cache, use_cache=True, **options).logits)
        done += part
    return torch.cat(logits, 1)


PARTS = {
    "at once": [LENGTH] + [1] * DECODED,
    "in chunks": [4, 4, 2] + [1] * DECODED,
    "token by token": [1] * (LENGTH + DECODED),
}
PADDED = (torch.arange(LENGTH + DECODED) >= torch.tensor([[0], [3]])).long()
QUICK = ("mistral", "gemma3", "opt")


def each_family(families=FAMILIES):
    return [pytest.param(family, marks=[] if family in QUICK else [pytest.mark.slow]) for family in families]


@pytest.mark.parametrize("family", each_family())
@torch.no_grad()
def test_a_family_is_steered_as_defined_however_its_prompt_is_read(family):
    model, ids, bias = build(family), tokens(), saliency()
    with defined(model, bias):
        wanted = whole(model, ids)
    assert not torch.allclose(wanted, whole(model, ids), atol=1e-2)
    for parts in PARTS.values():
        with steer(model, bias=bias, strength=STRENGTH):
            cache = transformers.DynamicCache(config=model.config)
            torch.testing.assert_close(in_parts(model, ids, parts, cache), wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", each_family())
@torch.no_grad()
def test_a_family_is_steered_as_defined_in_static_caches_and_under_padding(family):
    model, ids, bias = build(family), tokens(2), saliency(2)
    parts = PARTS["at once"]
    with defined(model, bias):
        wanted = whole(model, ids, PADDED)
    room = LENGTH + DECODED + 3
    for cache in (
        transformers.DynamicCache(config=model.config),
        transformers.StaticCache(config=model.config, max_cache_len=room),
    ):
        with steer(model, bias=bias, strength=STRENGTH):
            steered = in_parts(model, ids, parts, cache, PADDED)
        seen = PADDED.bool()
        torch.testing.assert_close(steered[seen], wanted[seen], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gpt2"])
@torch.no_grad()
def test_eager_models_and_float64_masks_are_steered_the_same(family):
    model, ids, bias = build(family, "eager"), tokens(2), saliency(2)
    with defined(model, bias):
        wanted = whole(model, ids, PADDED)
    with steer(model, bias=bias, strength=STRENGTH):
        cache = transformers.DynamicCache(config=model.config)
        steered = in_parts(model, ids, PARTS["in chunks"], cache, PADDED)
    seen = PADDED.bool()
    torch.testing.assert_close(steered[seen], wanted[seen], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "backend",
    [
        "cpu",
        pytest.param("eager", marks=pytest.mark.slow),
        pytest.param("sdpa-math", marks=pytest.mark.slow),
        pytest.param("sdpa-cpu", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_windows_are_steered_alike_by_every_backend(backend):
    model, ids, bias = build("mistral"), tokens(2), saliency(2)
    with defined(model, bias):
        wanted = whole(model, ids)
    with steer(model, bias=bias, strength=STRENGTH, backend=backend):
        steered = in_parts(model, ids, PARTS["at once"], transformers.DynamicCache(config=model.config))
    torch.testing.assert_close(steered, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("how", ["keyword", "config"])
@torch.no_grad()
def test_a_decoder_run_both_ways_stays_so(how):
    model, ids, bias = build("llama"), tokens(length=LENGTH), saliency()
    options = {"is_causal": False} if how == "keyword" else {}
    if how == "config":
        model.config.is_causal = False
    visible = torch.zeros(1, 1, LENGTH, LENGTH)
    with defined(model, bias):
        wanted = model(ids, attention_mask=visible, use_cache=False).logits
    with steer(model, bias=bias, strength=STRENGTH):
        steered = model(ids, use_cache=False, **options).logits
    torch.testing.assert_close(steered, wanted, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_an_encoder_is_steered_both_ways_with_padding_behind():
    model, ids, bias = build("bert"), tokens(2, LENGTH), saliency(2)
    padding = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [7]])).long()
    with defined(model, bias):
        wanted = model(ids, attention_mask=padding).last_hidden_state
    with steer(model, bias=bias, strength=STRENGTH):
        steered = model(ids, attention_mask=padding).last_hidden_state
    torch.testing.assert_close(steered, wanted, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_packed_sequences_are_steered_each_in_itself():
    model, ids, bias = build("llama"), tokens(length=LENGTH), saliency()
    positions = torch.cat([torch.arange(4), torch.arange(LENGTH - 4)])[None]
    with steer(model, bias=bias, strength=STRENGTH):
        packed = model(ids, position_ids=positions, use_cache=False).logits
    for part in (slice(0, 4), slice(4, LENGTH)):
        with defined(model, bias[:, part]):
            wanted = whole(model, ids[:, part])
        torch.testing.assert_close(packed[:, part], wanted, atol=1e-4, rtol=1e-3)


def _refused(name: str, **options):
    sizes = {**SIZES, **options}
    config = getattr(transformers, f"{name}Config")(**sizes)
    kind = "ForConditionalGeneration" if config.is_encoder_decoder else "ForCausalLM"
    return getattr(transformers, name + kind)._from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("T5", {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48}, "decoder or an encoder alone"),
        ("Bart", {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2}, "decoder or an encoder alone"),
        ("GptOss", {"num_local_experts": 2}, "changes its scores by sinks"),
        ("Gemma2", {}, "changes its scores by attn_logit_softcapping"),
        ("Bloom", {}, "attends, by transformers' attention interface"),
    ],
)
def test_a_family_that_cannot_be_steered_is_refused_when_the_context_opens(name, options, words):
    model = _refused(name, **options)
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=words), steer(model, bias=saliency()):
        raise AssertionError("the context opened")
    assert model.config._attn_implementation == before
    assert not model._forward_pre_hooks


def test_layers_that_softcap_may_be_left_out():
    model = _refused("Gemma2")
    with torch.no_grad():
        plain = model(tokens(length=LENGTH)).logits
        with steer(model, bias=saliency(), heads=torch.zeros(2, 4)):
            assert torch.equal(model(tokens(length=LENGTH)).logits, plain)


@torch.no_grad()
def test_quantized_caches_are_steered_as_a_mask_with_the_bias_would():
    model, ids, bias = build("llama"), tokens(), saliency()

    def cache():
        return transformers.QuantizedCache("fp8", model.config)

    added = STRENGTH * torch.nn.functional.pad(bias, (0, DECODED))[:, None, None]
    causal = torch.ones(LENGTH + DECODED, LENGTH + DECODED, dtype=torch.bool).tril()
    mask = torch.where(causal, added, torch.finfo(torch.float32).min)
    plain, wanted, done = cache(), [], 0
    for part in PARTS["at once"]:
        rows = slice(done, done + part)
        given = mask[:, :, rows, : rows.stop]
        wanted.append(
            model(
                ids[:, rows],
                past_key_values=plain,
                attention_mask=given,
                position_ids=torch.arange(rows.start, rows.stop)[None],
            ).logits
        )
        done += part
    with steer(model, bias=bias, strength=STRENGTH):
        steered = in_parts(model, ids, PARTS["at once"], cache())
    torch.testing.assert_close(steered, torch.cat(wanted, 1), atol=1e-4, rtol=1e-3)
