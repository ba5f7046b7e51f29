"""Steering inside tiny random models, against the same models given λ b in a mask of their own."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
import transformers

from rls_bench.errors import BackendUnavailable, BackendUnsupported, UnknownBackend
from rls_bench.integrations import wiring
from rls_bench.integrations.transformers import NAME, register, steer
from rls_bench.steering import Gate, head_mask
from rls_bench.steering.schedule import per_layer, step, target_mass

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
QWEN2_VL_VISION = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}


def build(family: str = "llama", attention: str = "sdpa"):
    torch.manual_seed(0)
    if family == "qwen2_vl":
        config = transformers.Qwen2VLConfig(
            text_config={**SIZES, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
            vision_config=QWEN2_VL_VISION,
            image_token_id=60,
            video_token_id=59,
            vision_start_token_id=58,
            vision_end_token_id=57,
        )
        model = transformers.Qwen2VLForConditionalGeneration._from_config(config, attn_implementation=attention)
    else:
        kinds = {
            "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            # SmolLM2 is a Llama with tied embeddings and as many as three query heads a key head.
            "smollm2": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
            "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        }
        config_class, model_class = kinds[family]
        sizes = SIZES
        if family == "smollm2":
            sizes = {**SIZES, "num_attention_heads": 6, "hidden_size": 48, "tie_word_embeddings": True}
        model = model_class._from_config(config_class(**sizes), attn_implementation=attention)
    model = model.eval().requires_grad_(False)
    # Random weights attend almost evenly; sharper scores make every test tell more.
    for name, parameter in model.named_parameters():
        if "q_proj.weight" in name or "k_proj.weight" in name:
            parameter.mul_(12)
    return model


FAMILIES = ["llama", "smollm2", "qwen2", "qwen2_vl"]


def tokens(batch: int = 2, length: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 56, (batch, length), generator=torch.Generator().manual_seed(seed))


def saliency(batch: int = 2, length: int = 12, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(seed))


def by_mask(model, ids: torch.Tensor, logit_bias: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
    """Logits of the unsteered model whose own causal mask carries ``logit_bias`` [B, Lk] in every head."""
    batch, length = ids.shape
    full = torch.nn.functional.pad(logit_bias, (0, length - logit_bias.shape[1]))[:, None, None, :]
    visible = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    positions = torch.arange(length).expand(batch, -1)
    if padding is not None:
        visible = visible & padding.bool()[:, None, None, :]
        positions = (padding.cumsum(-1) - 1).clamp_min(0)
    # A query of padding sees nothing; any finite row will do for it.
    mask = torch.where(visible, full, torch.finfo(torch.float32).min)
    if "Qwen2VL" in type(model).__name__:
        positions = positions.expand(3, -1, -1)
    return model(ids, attention_mask=mask, position_ids=positions).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager", NAME])
def test_strength_0_gives_the_unsteered_logits_bit_for_bit(family, attention):
    register()
    model, ids = build(family, attention), tokens()
    base = model(ids).logits
    with steer(model, bias=saliency(), strength=0.0):
        assert torch.equal(model(ids).logits, base)
    assert torch.equal(model(ids).logits, base)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_steered_as_a_mask_with_the_bias_would(family):
    model, ids, bias = build(family), tokens(), saliency()
    with steer(model, bias=bias, strength=1.5):
        steered = model(ids).logits
    torch.testing.assert_close(steered, by_mask(model, ids, 1.5 * bias), atol=2e-5, rtol=1e-4)
    assert not torch.allclose(steered, model(ids).logits, atol=1e-2)


def greedy_by_mask(model, ids: torch.Tensor, padding: torch.Tensor, logit_bias: torch.Tensor, steps: int):
    """Greedy decoding without a cache, by the same model with λ b in its mask."""
    for _ in range(steps):
        chosen = by_mask(model, ids, logit_bias, padding)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, chosen], dim=1)
        padding = torch.cat([padding, torch.ones_like(chosen)], dim=1)
    return ids


PADDED = torch.tensor([[0] * 5 + [1] * 7, [1] * 12, [0] * 1 + [1] * 11])


@pytest.mark.parametrize("family", FAMILIES)
def test_generate_steers_a_left_padded_batch_through_its_cache(family):
    model, ids, bias = build(family), tokens(3), saliency(3)
    expected = greedy_by_mask(model, ids, PADDED, 1.5 * bias, steps=6)
    options = {"attention_mask": PADDED, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    with steer(model, bias=bias, strength=1.5):
        steered = model.generate(ids, **options)
    assert torch.equal(steered, expected)


def test_a_static_cache_decodes_the_same():
    model, ids, bias = build(), tokens(3), saliency(3)
    options = {"attention_mask": PADDED, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    with steer(model, bias=bias, strength=1.5):
        dynamic = model.generate(ids, **options)
        static = model.generate(ids, cache_implementation="static", disable_compile=True, **options)
    assert torch.equal(static, dynamic)


def test_right_padding_leaves_the_tokens_before_it_alone():
    model, ids, bias = build(), tokens(), saliency()
    padding = torch.tensor([[1] * 8 + [0] * 4, [1] * 12])
    with steer(model, bias=bias, strength=1.5):
        together = model(ids, attention_mask=padding).logits
    with steer(model, bias=bias[:1, :8], strength=1.5):
        alone = model(ids[:1, :8]).logits
    torch.testing.assert_close(together[:1, :8], alone, atol=2e-5, rtol=1e-4)


def test_a_prompt_may_come_in_chunks():
    model, ids, bias = build(), tokens(1), saliency(1)
    padding = torch.tensor([[0] * 3 + [1] * 9])
    with steer(model, bias=bias, strength=1.5):
        whole = model(ids, attention_mask=padding).logits
        cache = transformers.DynamicCache(config=model.config)
        model(ids[:, :8], attention_mask=padding[:, :8], past_key_values=cache)
        second = model(ids[:, 8:], attention_mask=padding, past_key_values=cache).logits
    torch.testing.assert_close(second, whole[:, 8:], atol=2e-5, rtol=1e-4)


def test_beams_share_their_prompts_bias():
    model, ids, bias = build(), tokens(2), saliency(2)
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "eos_token_id": None}
    with steer(model, bias=bias, strength=1.5):
        together = model.generate(ids, **options)
    alone = []
    for row in range(2):
        with steer(model, bias=bias[row], strength=1.5):
            alone.append(model.generate(ids[row : row + 1], **options))
    assert torch.equal(together, torch.cat(alone))


def test_only_chosen_heads_are_steered():
    model, ids, bias = build(), tokens(), saliency()
    heads = head_mask(3, 4, [(layer, 1) for layer in range(3)])
    with steer(model, bias=bias, strength=1.5, heads=heads):
        steered = model(ids).logits
    per_head = 1.5 * bias[:, None, None, :] * heads[0].float()[None, :, None, None]
    mask = torch.where(torch.ones(12, 12, dtype=torch.bool).tril(), per_head, torch.finfo(torch.float32).min)
    torch.testing.assert_close(steered, model(ids, attention_mask=mask).logits, atol=2e-5, rtol=1e-4)


def test_layers_may_differ_in_heads_and_strength():
    """Also where layers share what was prepared for the pass: two are steered in the same heads, two as strongly."""
    model, ids, bias = build(), tokens(3), saliency(3)
    weights = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 2.0, 0.0, 1.0], [1.0, 0.0, 0.5, 0.0]])
    strengths = torch.tensor([1.5, 1.5, 0.75])[:, None] * weights
    expected = greedy_by_layer_mask(model, ids, strengths, bias, steps=5)
    options = {"attention_mask": PADDED, "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with steer(model, bias=bias, strength=1.5, heads=weights, schedule=per_layer([1.0, 1.0, 0.5])):
        assert torch.equal(model.generate(ids, **options), expected)


def greedy_by_layer_mask(model, ids: torch.Tensor, strengths: torch.Tensor, bias: torch.Tensor, steps: int):
    """Greedy decoding of PADDED prompts without a cache; each layer's own mask holds its λ b."""
    padding = PADDED

    def add_bias(module, arguments, options):
        length = options["attention_mask"].shape[-1]
        keys = torch.nn.functional.pad(bias, (0, length - bias.shape[1]))[:, None, None, :]
        added = strengths[module.layer_idx][None, :, None, None] * keys
        mask = torch.where(options["attention_mask"] == 0, added, options["attention_mask"])
        return arguments, {**options, "attention_mask": mask}

    hooks = [layer.self_attn.register_forward_pre_hook(add_bias, with_kwargs=True) for layer in model.model.layers]
    for _ in range(steps):
        # A bias of 0 makes ``by_mask`` give each layer a mask to add to.
        chosen = by_mask(model, ids, torch.zeros_like(bias), padding)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, chosen], dim=1)
        padding = torch.cat([padding, torch.ones_like(chosen)], dim=1)
    for hook in hooks:
        hook.remove()
    return ids


def test_no_head_and_no_layer_give_the_unsteered_logits_bit_for_bit():
    model, ids = build(), tokens()
    base = model(ids).logits
    with steer(model, bias=saliency(), strength=9.0, heads=torch.zeros(3, 4, dtype=torch.bool)):
        assert torch.equal(model(ids).logits, base)
    with steer(model, bias=saliency(), strength=9.0, schedule=per_layer({})):
        assert torch.equal(model(ids).logits, base)


def test_a_schedule_over_steps_lets_go_after_the_prompt():
    model, ids, bias = build(), tokens(1), saliency(1, 11)
    with steer(model, bias=bias, strength=1.5, schedule=step(1, 0, at=1)):
        cache = transformers.DynamicCache(config=model.config)
        model(ids[:, :-1], past_key_values=cache)
        second = model(ids[:, -1:], past_key_values=cache).logits
    with steer(model, bias=bias, strength=1.5):
        cache = transformers.DynamicCache(config=model.config)
        model(ids[:, :-1], past_key_values=cache)
    assert torch.equal(model(ids[:, -1:], past_key_values=cache).logits, second)


@pytest.mark.parametrize("backend", ["eager", "sdpa-math", "sdpa-cpu", "keyfold"])
def test_any_backend_steers_alike(backend):
    model, ids, bias = build(), tokens(3), saliency(3)
    with steer(model, bias=bias, strength=1.5):
        auto = model(ids, attention_mask=PADDED).logits[:, -1]
    with steer(model, bias=bias, strength=1.5, backend=backend):
        torch.testing.assert_close(model(ids, attention_mask=PADDED).logits[:, -1], auto, atol=1e-4, rtol=1e-3)


def test_a_backend_that_cannot_do_it_raises():
    model = build()
    with pytest.raises(BackendUnsupported, match="valuefold"), steer(model, bias=saliency(), backend="valuefold"):
        model(tokens())


def test_a_backend_that_cannot_run_is_refused_before_anything_changes():
    model = build()
    with pytest.raises(UnknownBackend), steer(model, bias=saliency(), backend="nothing"):
        pass
    with pytest.raises(BackendUnavailable, match="CUDA"), steer(model, bias=saliency(), backend="sdpa-cudnn"):
        pass
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("lagged", [False, True])
def test_a_gate_on_disagreement_opens_where_its_threshold_says(lagged):
    model, ids, bias = build(), tokens(1), saliency(1)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}

    def run(threshold: float):
        gate = Gate(threshold=threshold, lagged=lagged, initial=float(threshold < 0))
        with steer(model, bias=bias, strength=1.5, gate=gate, backend="eager") as control:
            return model.generate(ids, **options), control.share_steered

    with steer(model, bias=bias, strength=1.5):
        ungated = model.generate(ids, **options)
    open_tokens, open_share = run(-1.0)
    shut_tokens, shut_share = run(2.0)
    assert torch.equal(open_tokens, ungated)
    assert torch.equal(shut_tokens, model.generate(ids, **options))
    assert (open_share, shut_share) == (1, 0)
    assert 0 < run(0.5)[1] < 1 or lagged


@pytest.mark.parametrize("signal", ["entropy", "margin"])
def test_a_gate_on_the_answer_acts_a_step_later(signal):
    model, ids, bias = build(), tokens(2), saliency(2)
    gate = Gate(signal, threshold=2.0, initial=1.0)
    with steer(model, bias=bias, strength=1.5, gate=gate) as control:
        assert control.share_steered is None
        model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    # Open for the prompt alone, of one prompt and three further passes.
    assert control.share_steered == pytest.approx(1 / 4)
    assert not model.lm_head._forward_hooks


def test_a_mass_schedule_wants_a_span():
    model = build()
    with pytest.raises(ValueError, match="0 and 1 alone"), steer(model, bias=saliency(), schedule=target_mass(0.5)):
        pass
    span = (torch.arange(12) < 4).float()
    with steer(model, bias=span, schedule=target_mass(0.5), backend="eager"):
        steered = model(tokens()).logits
    assert not torch.allclose(steered, model(tokens()).logits, atol=1e-3)


def test_leaving_lets_go_of_the_cache():
    model, cache = build(), transformers.DynamicCache()
    with steer(model, bias=saliency(), strength=1.5) as control:
        model(tokens(), past_key_values=cache)
        keys = weakref.ref(cache.layers[0].keys)
    del cache
    gc.collect()
    assert keys() is None
    assert control.share_steered is None


@pytest.mark.parametrize("fails", [False, True])
def test_leaving_leaves_no_trace(fails):
    model, ids = build("qwen2_vl"), tokens()
    base, text_config = model(ids).logits, model.config.text_config
    before = {key: repr(value) for key, value in vars(text_config).items()}
    try:
        with steer(model, bias=saliency(), strength=1.5, gate=Gate("entropy")):
            assert text_config._attn_implementation == NAME
            assert model.config.vision_config._attn_implementation == "sdpa"
            model(ids)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert {key: repr(value) for key, value in vars(text_config).items()} == before
    assert not wiring._WIRED
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(ids).logits, base)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bias": torch.zeros(2, 1, 12)}, "bias: wanted"),
        ({"bias": torch.full((12,), float("nan"))}, "finite"),
        ({"strength": float("inf")}, "strength"),
        ({"heads": torch.ones(2, 4)}, r"heads: wanted .* \[3, 4\]"),
        ({"heads": torch.full((3, 4), float("nan"))}, "heads: wanted finite"),
        ({"bias": [1.0] * 12}, "bias: wanted a Tensor; got list"),
        ({"heads": [[1] * 4] * 3}, "heads: wanted a Tensor; got list"),
        ({"gate": "entropy"}, "gate: wanted a Gate; got str"),
        ({"schedule": 0.5}, "schedule: wanted what rls_bench.steering.schedule makes"),
        ({"strength": torch.ones(4)}, "strength: wanted one number"),
        ({"strength": "2"}, "strength: wanted one number"),
    ],
)
def test_bad_arguments_are_named(options, words):
    model = build()
    with pytest.raises((TypeError, ValueError), match=words), steer(model, **{"bias": saliency(), **options}):
        pass
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("bias", "words"),
    [(saliency(2, 15), "prompt, 12; got 15"), (saliency(2, 9), "prompt, 12; got 9"), (saliency(5), "got 5")],
)
def test_a_bias_that_does_not_fit_the_prompt_is_refused(bias, words):
    model = build()
    with pytest.raises(ValueError, match=words), steer(model, bias=bias):
        model.generate(tokens(), max_new_tokens=2, eos_token_id=None)


def test_a_bias_shorter_than_the_prompt_may_be_asked_for():
    model, ids, bias = build(), tokens(), saliency(2, 9)
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with steer(model, bias=bias, strength=1.5, pad_bias=True):
        padded = model.generate(ids, **options)
    with steer(model, bias=torch.nn.functional.pad(bias, (0, 3)), strength=1.5):
        assert torch.equal(model.generate(ids, **options), padded)


def test_what_steering_would_drop_is_refused():
    dropping = build()
    for layer in dropping.model.layers:
        layer.self_attn.attention_dropout = 0.1
    dropping.train()
    with pytest.raises(ValueError, match="dropout"), steer(dropping, bias=saliency()):
        dropping(tokens())
    model = build()
    with steer(model, bias=saliency()), pytest.raises(ValueError, match="already"), steer(model, bias=saliency()):
        pass
    with (
        pytest.raises(ValueError, match="wanted a transformers model"),
        steer(torch.nn.Linear(2, 2), bias=saliency()),
    ):
        pass


@pytest.mark.slow
def test_importing_registers_nothing():
    code = (
        "from rls_bench.integrations import transformers as integration; "
        "from transformers import AttentionInterface as table; "
        "assert integration.NAME not in table._global_mapping; integration.register(); "
        "assert integration.NAME in table._global_mapping"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
