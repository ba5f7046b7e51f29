"""What a context does to a model and to whoever else calls it: threads, copies, checkpointing, guidance."""

import asyncio
import contextvars
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from tiny_models import DECODED, LENGTH, STRENGTH, build, defined, saliency, tokens, whole

from rls_bench.integrations import wiring
from rls_bench.integrations.transformers import steer
from rls_bench.steering import Gate

GREEDY = {"max_new_tokens": DECODED, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def model():
    return build("llama")


@torch.no_grad()
def logits(model, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits


def in_a_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize("backend", ["cpu", pytest.param("eager", marks=pytest.mark.slow)])
def test_threads_started_in_a_context_are_steered_each_in_its_own_pass(model, backend):
    prompts = [tokens(1, LENGTH + 4 * place) for place in range(4)]
    with steer(model, bias=saliency(), strength=STRENGTH, backend=backend, pad_bias=True):
        alone = [logits(model, ids) for ids in prompts]
        with ThreadPoolExecutor(4) as pool:
            for place, steered in [
                (place, pool.submit(logits, model, prompts[place])) for _ in range(10) for place in range(4)
            ]:
                torch.testing.assert_close(steered.result(), alone[place], atol=1e-4, rtol=1e-4)


def test_calls_of_other_threads_stay_unsteered(model):
    ids, bias = tokens(1, LENGTH), saliency()
    own = logits(model, ids)
    with ThreadPoolExecutor(1) as before:
        before.submit(int).result()
        with steer(model, bias=bias, strength=STRENGTH) as control:
            steered = logits(model, ids)
            assert torch.equal(before.submit(logits, model, ids).result(), own)

            def joined():
                with control.joined():
                    return logits(model, ids)

            torch.testing.assert_close(before.submit(joined).result(), steered)
            assert torch.equal(before.submit(logits, model, ids).result(), own)
    assert not torch.allclose(steered, own, atol=1e-2)


def test_each_thread_may_steer_the_same_model_its_own_way(model):
    ids, biases, barrier = tokens(1, LENGTH), [saliency(), -saliency()], threading.Barrier(3)
    own = logits(model, ids)
    wanted = []
    for bias in biases:
        with steer(model, bias=bias, strength=STRENGTH):
            wanted.append(logits(model, ids))

    def steered(bias):
        with steer(model, bias=bias, strength=STRENGTH):
            barrier.wait(20)
            answer = logits(model, ids)
            barrier.wait(20)
            return answer

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(steered, bias) for bias in biases]
        barrier.wait(20)
        # Opened by no main thread, they reach no other.
        assert torch.equal(logits(model, ids), own)
        assert torch.equal(in_a_thread(logits, model, ids), own)
        barrier.wait(20)
        for answer, expected in zip(answers, wanted, strict=True):
            torch.testing.assert_close(answer.result(), expected)
    assert model.config._attn_implementation == "sdpa"
    assert not wiring._WIRED


def test_tasks_and_copied_contexts_go_along(model):
    ids = tokens(1, LENGTH)

    async def ask():
        return await asyncio.to_thread(logits, model, ids)

    with steer(model, bias=saliency(), strength=STRENGTH):
        steered = logits(model, ids)
        torch.testing.assert_close(asyncio.run(ask()), steered)
        inside = contextvars.copy_context()
    assert not torch.allclose(inside.run(logits, model, ids), steered, atol=1e-2)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_control_is_no_thing_to_copy_and_says_what_is(make):
    with (
        steer(build("llama"), bias=saliency(), strength=STRENGTH) as control,
        pytest.raises(TypeError, match="a copy of"),
    ):
        make(control)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_made_in_a_context_know_nothing_of_it(model, make):
    ids = tokens(1, LENGTH)
    own = logits(model, ids)
    gate = Gate("entropy", threshold=0.5)
    with steer(model, bias=saliency(), strength=STRENGTH, gate=gate) as control:
        logits(model, ids)
        before = control._signals[0].clone()
        twin = make(model)
        assert twin.config._attn_implementation == "sdpa"
        assert type(twin.config._attn_implementation) is str
        assert torch.equal(logits(twin, ids.flip(1)), logits(twin, ids.flip(1)))
        assert torch.equal(control._signals[0], before)
    assert torch.equal(logits(twin, ids), own)
    for module in twin.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def gradients(model, batches, reentrant: bool | None, inside: bool) -> torch.Tensor:
    model.zero_grad()
    model.gradient_checkpointing_disable()
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.enable_input_require_grads()
    with steer(model, bias=saliency(), strength=STRENGTH):
        loss = sum(model(ids, labels=ids, use_cache=False).loss for ids in batches)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("family", "reentrant"),
    [
        ("llama", False),
        ("mistral", True),
        pytest.param("llama", True, marks=pytest.mark.slow),
        pytest.param("gpt_neox", False, marks=pytest.mark.slow),
        pytest.param("gpt2", True, marks=pytest.mark.slow),
        pytest.param("gemma3", False, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_without_checkpointing(family, reentrant, inside):
    model = build(family).requires_grad_(True).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for batches in (
        [tokens(2, LENGTH)],
        [tokens(2, LENGTH), tokens(2, LENGTH + 4)],
        [tokens(2, 14), tokens(2, LENGTH)],
    ):
        wanted = gradients(model, batches, None, inside=True)
        got = gradients(model, batches, reentrant, inside)
        torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)
    assert not any(
        isinstance(getattr(part, wiring._CHECKPOINTING, None), wiring._CarriesPass) for part in model.modules()
    )
    assert not wiring._WIRED
    assert model.config._attn_implementation == "sdpa"


def guided(model, ids, bias, negative: torch.Tensor, scale: float) -> torch.Tensor:
    """Greedy tokens under classifier-free guidance by its definition: the other prompt is not steered."""
    chosen = ids[:, :0]
    for _ in range(DECODED):
        with defined(model, bias):
            towards = whole(model, torch.cat([ids, chosen], 1))[:, -1].log_softmax(-1)
        away = whole(model, torch.cat([negative, chosen], 1))[:, -1].log_softmax(-1)
        chosen = torch.cat([chosen, (scale * (towards - away) + away).argmax(-1, keepdim=True)], 1)
    return torch.cat([ids, chosen], 1)


@pytest.mark.parametrize("length", [None, 7, LENGTH])
@torch.no_grad()
def test_guidance_steers_its_own_prompt_alone_and_counts_its_steps(model, length):
    ids, bias = tokens(1, LENGTH), saliency()
    options = {} if length is None else {"negative_prompt_ids": tokens(1, 20)[:, -length:]}
    negative = ids[:, -1:] if length is None else options["negative_prompt_ids"]
    steps = []

    def schedule(position):
        steps.append(position.step)
        return 1.0

    with steer(model, bias=bias, strength=STRENGTH, schedule=schedule):
        steered = model.generate(ids, guidance_scale=1.5, **GREEDY, **options)
    assert torch.equal(steered, guided(model, ids, bias, negative, 1.5))
    assert steps[:: len(model.model.layers)] == list(range(DECODED))


@torch.no_grad()
def test_assisted_decoding_chooses_the_same_tokens(model):
    ids, bias = tokens(1, LENGTH).repeat(1, 2)[:, :LENGTH], saliency()
    with steer(model, bias=bias, strength=STRENGTH):
        plain = model.generate(ids, **GREEDY)
        assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=3, **GREEDY), plain)
        assert torch.equal(model.generate(ids, assistant_model=build("llama"), **GREEDY), plain)
        assert torch.equal(model.generate(ids, use_cache=False, **GREEDY), plain)
        for size in (4, 3, 1):
            assert torch.equal(model.generate(ids, prefill_chunk_size=size, **GREEDY), plain)


def test_a_layer_called_by_itself_is_refused(model):
    layer = model.model.layers[0]
    hidden = torch.zeros(1, 3, 32)
    embeddings = model.model.rotary_emb(hidden, torch.arange(3)[None])
    with steer(model, bias=saliency()), pytest.raises(RuntimeError, match="call the whole model"):
        layer(hidden, position_embeddings=embeddings)


def test_attention_changed_in_a_context_is_named(model):
    with steer(model, bias=saliency()):
        model.config._attn_implementation = "eager"
        with pytest.raises(RuntimeError, match="attn_implementation changed"):
            logits(model, tokens(1, LENGTH))


def test_a_pass_that_failed_leaves_nothing_behind(model):
    ids = tokens(1, LENGTH)
    with steer(model, bias=saliency(), strength=STRENGTH):
        steered = logits(model, ids)
        with pytest.raises(IndexError):
            logits(model, ids + 1000)
        assert wiring._PASS.get() is None
        torch.testing.assert_close(logits(model, ids), steered)


def test_caches_of_another_kind_are_named(model):
    with steer(model, bias=saliency()), pytest.raises(TypeError, match="wanted a transformers Cache"):
        model.model(tokens(1, LENGTH), past_key_values=[])


@pytest.mark.slow
@torch.no_grad()
def test_static_and_hybrid_caches_of_generate_choose_the_same_tokens():
    for family in ("llama", "mistral", "gemma3", "qwen2"):
        model, ids, bias = build(family), tokens(2, LENGTH), saliency(2)
        with steer(model, bias=bias, strength=STRENGTH):
            dynamic = model.generate(ids, **GREEDY)
            static = model.generate(ids, cache_implementation="static", disable_compile=True, **GREEDY)
            beams = model.generate(ids, num_beams=3, **GREEDY)
        assert torch.equal(static, dynamic)
        for row in range(2):
            with steer(model, bias=bias[row], strength=STRENGTH):
                alone = model.generate(ids[row : row + 1], num_beams=3, **GREEDY)
            assert torch.equal(beams[row : row + 1], alone)


def test_a_model_loaded_with_the_name_runs_sdpa_beside_a_context(model):
    other = transformers.LlamaForCausalLM._from_config(
        copy.deepcopy(model.config), attn_implementation="rls_steered"
    ).eval()
    ids = tokens(1, LENGTH)
    own = logits(other, ids)
    with steer(model, bias=saliency()):
        assert torch.equal(logits(other, ids), own)
