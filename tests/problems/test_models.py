"""A model's problems: of the table's rows against the figures of their configs, of configs, and what is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from rls_bench.cli import problem_argument
from rls_bench.cli.problem_argument import OfModel
from rls_bench.errors import ProblemError
from rls_bench.problems import models
from rls_bench.problems.models import Layers

# hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads and, where the config says it, head_dim: the
# words of each model's own config.json, from which the table's rows must follow.
CONFIGS: dict[str, tuple[int, ...]] = {
    "Llama-3.1-8B": (4096, 32, 32, 8),
    "Llama-3.1-70B": (8192, 80, 64, 8),
    "Llama-3.2-1B": (2048, 16, 32, 8, 64),
    "Llama-3.2-3B": (3072, 28, 24, 8, 128),
    "Llama-3.3-70B": (8192, 80, 64, 8, 128),
    "SmolLM2-135M": (576, 30, 9, 3),
    "SmolLM2-360M": (960, 32, 15, 5),
    "SmolLM2-1.7B": (2048, 24, 32, 32),
    "SmolVLM2-256M": (576, 30, 9, 3),
    "SmolVLM2-500M": (960, 32, 15, 5),
    "SmolVLM2-2.2B": (2048, 24, 32, 32),
    "Qwen2.5-VL-3B": (2048, 36, 16, 2),
    "Qwen2.5-VL-7B": (3584, 28, 28, 4),
    "Qwen2.5-VL-32B": (5120, 64, 40, 8),
    "Qwen2.5-VL-72B": (8192, 80, 64, 8),
    "Qwen3-VL-2B": (2048, 28, 16, 8, 128),
    "Qwen3-VL-4B": (2560, 36, 32, 8, 128),
    "Qwen3-VL-8B": (4096, 36, 32, 8, 128),
    "Qwen3-VL-32B": (5120, 64, 64, 8, 128),
    "Qwen3-VL-30B-A3B": (2048, 48, 32, 4, 128),
    "Qwen3-VL-235B-A22B": (4096, 94, 64, 4, 128),
    "InternVL3-1B": (896, 24, 14, 2),
    "InternVL3-2B": (1536, 28, 12, 2),
    "InternVL3-8B": (3584, 28, 28, 4),
    "InternVL3-14B": (5120, 48, 40, 8),
    "InternVL3-38B": (5120, 64, 40, 8),
    "InternVL3-78B": (8192, 80, 64, 8),
    "Pixtral-12B": (5120, 40, 32, 8, 128),
    "Gemma-3-1B": (1152, 26, 4, 1, 256),
    "Gemma-3-4B": (2560, 34, 8, 4, 256),
    "Gemma-3-12B": (3840, 48, 16, 8, 256),
    "Gemma-3-27B": (5376, 62, 32, 16, 128),
}


def config(name: str) -> dict[str, Any]:
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    found: dict[str, Any] = {"torch_dtype": "bfloat16", **dict(zip(keys, CONFIGS[name], strict=False))}
    if name.startswith("Gemma"):
        found |= {"sliding_window": 512 if name == "Gemma-3-1B" else 1024, "sliding_window_pattern": 6}
    return found


def test_every_row_has_its_config() -> None:
    assert set(models.names()) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shape_of_a_row_equals_the_configs(name: str) -> None:
    row, read = models.find(name), models.from_config(config(name), name)
    # A file as it was in a commit; of what is second-hand that which names the text model.
    assert re.search(r"\b[0-9a-f]{7}\b", row.source)
    assert (row.dtype, set(row.layers)) == (read.dtype, set(read.layers))
    for contexts, batches in (((300,), (1, 8)), ((600, 5000), (3,))):
        wanted = sorted(models.problems(read, contexts=contexts, batches=batches)[0], key=str)
        assert sorted(models.problems(row, contexts=contexts, batches=batches)[0], key=str) == wanted
    assert sum(layers.number for layers in row.layers) == CONFIGS[name][1]


def test_a_model_is_prefill_of_one_prompt_and_decode_at_each_batch() -> None:
    found, left_out = models.problems(models.find("Llama-3.1-8B"), contexts=[1024], batches=[1, 8])
    assert [(one.problem.title, one.weight) for one in found] == [
        ("B1 H32/8 L1024 D128 bf16 causal", 32),
        ("B1 H32/8 Lq1 Lk1024 D128 bf16", 32),
        ("B8 H32/8 Lq1 Lk1024 D128 bf16 padded", 32),
    ]
    assert found[0].problem.name == "Llama-3.1-8B prefill 1024"
    assert not left_out


def test_images_come_on_top() -> None:
    gemma, left_out = models.problems(models.find("google/gemma-3-4b-it"), contexts=[256], images=2)
    assert {one.problem.key_length for one in gemma} == {768}
    assert not left_out
    with pytest.raises(ProblemError, match="wanted the tokens of an image"):
        models.problems(models.find("Llama-3.2-1B"), images=1)
    assert models.problems(models.find("Llama-3.2-1B"), contexts=[100], images=1, image_tokens=50)[0]


def test_a_window_that_hides_keys_is_named_and_left_out_of_prefill() -> None:
    found, left_out = models.problems(models.find("Gemma-3-4B"), contexts=[4096])
    assert {(one.problem.title, one.weight) for one in found} == {
        ("B1 H8/4 L4096 D256 bf16 causal", 5),
        ("B1 H8/4 Lq1 Lk4096 D256 bf16", 5),
        ("B1 H8/4 Lq1 Lk1024 D256 bf16", 29),
    }
    assert left_out == ["Gemma-3-4B: left out prefill of 4096 tokens in 29 layers: a window of 1024 keys"]


TEXT = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"attn_logit_softcapping": 50.0}, "all 4 layers: softcapped scores"),
        ({"kv_lora_rank": 512}, r"all 4 layers: latent attention \(MLA\)"),
        ({"alibi": True}, r"positions in the scores \(ALiBi\)"),
        ({"model_type": "gpt_oss"}, "attention sinks"),
        ({"layer_types": ["linear_attention"] * 3 + ["full_attention"]}, "3 layers: linear attention"),
    ],
)
def test_what_the_operator_cannot_do_is_named(extra: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": TEXT | extra}), encoding="utf-8")
    found, left_out = models.problems(models.find(str(tmp_path)), contexts=[64])
    assert sum(one.weight for one in found) == (2 if "layer_types" in extra else 0)
    (line,) = left_out
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(line)
    if not found:
        with pytest.raises(typer.BadParameter, match="nothing is left of it"):
            problem_argument.select("cpu", model=OfModel(str(path)))


def test_configs_are_read_as_transformers_does() -> None:
    def layers(**fields: Any) -> tuple[Layers, ...]:
        return models.from_config(TEXT | fields, "m").layers

    assert layers() == (Layers(4),)
    assert layers(model_type="qwen2", sliding_window=32, use_sliding_window=False) == (Layers(4),)
    assert layers(model_type="qwen2", sliding_window=32, use_sliding_window=True, max_window_layers=3) == (
        Layers(3),
        Layers(1, 32),
    )
    assert layers(model_type="mistral", sliding_window=32, num_key_value_heads=4) == (Layers(4, 32),)
    # Every sixth is full, and only four are there.
    assert layers(model_type="gemma3_text") == (Layers(4, 4096),)
    odd = models.from_config(TEXT | {"head_dim": 40, "num_key_value_heads": 1, "dtype": "float16"}, "m")
    assert (odd.head_dim, odd.kv_heads, odd.dtype) == (40, 1, "float16")
    vision = {"text_config": TEXT, "vision_config": {"hidden_size": 9}, "mm_tokens_per_image": 256}
    assert models.from_config(vision, "m").image_tokens == 256
    assert models.from_config(vision | {"mm_tokens_per_image": None, "image_seq_length": 1}, "m").image_tokens == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it cannot be read"),
        ("[]", "wanted one JSON object; got list"),
        ("{}", "wanted num_hidden_layers, a number of 1 or more; got None"),
        (json.dumps(TEXT | {"num_key_value_heads": 3}), "num_key_value_heads that divide 4; got 3"),
        (json.dumps(TEXT | {"num_hidden_layers": "4"}), "wanted num_hidden_layers"),
    ],
)
def test_a_config_that_lacks_something_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ProblemError, match=message):
        models.find(str(tmp_path))


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(ProblemError, match=r"the nearest is Llama-3\.1-8B"):
        models.find("llama-3.1-9b")
    assert models.find("meta-llama/Llama-3.1-8B-Instruct").name == "Llama-3.1-8B"


def test_the_command_lines_words_ask_for_it_again() -> None:
    found = problem_argument.select("cpu", model=OfModel("Qwen2.5-VL-7B", "512", 1), batch="1,8")
    assert found.words == "--model Qwen2.5-VL-7B --context 512 --images 1 --batch 1,8"
    assert [problem.title for problem in found.problems] == [
        "B1 H28/4 L1536 D128 bf16 causal",
        "B1 H28/4 Lq1 Lk1536 D128 bf16",
        "B8 H28/4 Lq1 Lk1536 D128 bf16 padded",
    ]
    with pytest.raises(typer.BadParameter, match="wanted one of"):
        problem_argument.select("cpu", model=OfModel("Qwen2.5-VL-7B"), suite="laptop")
    with pytest.raises(typer.BadParameter, match="over --context"):
        problem_argument.select("cpu", model=OfModel("Qwen2.5-VL-7B"), length="64")
