"""The problems of one model: from a Hugging Face ``config.json``, or a table of models that the package carries.

What the operator cannot do (softcapped scores, latent attention, windows that hide keys) is named and left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from rls_bench.errors import ProblemError
from rls_bench.problems.problem import DTYPE_BYTES, DType, Problem, Size
from rls_bench.problems.workload import Weighted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Parts of a vision or audio model's config that are its language model's.
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
# What a config of these types leaves out where it is the default (transformers 5, configuration_*.py).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
    },
    "mistral": {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32},
    "qwen2": {"use_sliding_window": False, "max_window_layers": 28},
    "qwen2_5_vl": {"use_sliding_window": False, "max_window_layers": 80},
    "qwen2_5_vl_text": {"use_sliding_window": False, "max_window_layers": 80},
}
# What the operator's formula has no place for, by the key of a config that says so.
_BEYOND = {
    "attn_logit_softcapping": "softcapped scores",
    "kv_lora_rank": "latent attention (MLA)",
    "attention_chunk_size": "attention in chunks",
    "alibi": "positions in the scores (ALiBi)",
}
_BEYOND_TYPES = {"gpt_oss": "attention sinks", "t5": "positions in the scores", "mamba": "no attention"}
_BEYOND_LAYERS = {"linear_attention": "linear attention", "mamba": "no attention", "chunked_attention": "chunks"}


@dataclass(frozen=True)
class Layers:
    """``number`` layers that are alike; they see the last ``window`` keys, or all where it is 0."""

    number: int
    window: int = 0


@dataclass(frozen=True)
class Model:
    """One model's attention. ``left_out`` says of some layers, or of all, why the operator cannot do them."""

    name: str
    query_heads: int
    kv_heads: int
    head_dim: int
    dtype: DType
    layers: tuple[Layers, ...]
    # Tokens that an image takes; 0 where that isn't known.
    image_tokens: int = 0
    source: str = ""
    left_out: tuple[str, ...] = ()


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    layers: Size
    query_heads: Size
    kv_heads: Size
    head_dim: Size
    dtype: DType
    sliding_window: int = 0
    full_attention_every: int = 0
    image_tokens: int = 0


def names() -> list[str]:
    """Names in the package's table."""
    return list(_table())


def find(name: str) -> Model:
    """The model of a config.json, of the folder that holds one, or of the table, whatever its capitals.

    Raises ProblemError: nothing has that name (with the nearest), or the config cannot be read or lacks something.
    """
    path = Path(name)
    if path.is_dir() or path.suffix == ".json":
        return read(path / "config.json" if path.is_dir() else path)
    # As hubs and users write it: with its maker, and what it was trained to.
    short = name.rsplit("/", 1)[-1].casefold()
    known = {one.casefold(): one for one in names()}
    for end in ("", "-instruct", "-it", "-hf", "-2409", "-thinking"):
        if short.removesuffix(end) in known:
            return _of_row(known[short.removesuffix(end)])
    nearest = get_close_matches(short, known, n=1, cutoff=0.0)[0]
    raise ProblemError(
        f"model {name!r}: wanted a config.json, its folder, or a model of the table; the nearest is {known[nearest]}"
    )


def read(path: Path) -> Model:
    """The model whose ``config.json`` is ``path``. Raises ProblemError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ProblemError(f"model {path}: wanted a config.json of transformers; it cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ProblemError(f"model {path}: wanted one JSON object; got {type(config).__name__}")
    found = from_config(config, str(path))
    return replace(found, name=path.absolute().parent.name if path.name == "config.json" else path.stem)


def from_config(config: Mapping[str, Any], name: str) -> Model:
    """The attention that a transformers config describes; of a model of several parts, the language model's."""
    text = _text_part(config)
    given = {key: value for key, value in text.items() if value is not None}
    text = _DEFAULTS.get(str(text.get("model_type")), {}) | given
    number = _size(text, name, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    query_heads = _size(text, name, "num_attention_heads", "n_head", "n_heads")
    kv_heads = (
        1 if text.get("multi_query") else _size(text, name, "num_key_value_heads", "num_kv_heads", of=query_heads)
    )
    if query_heads % kv_heads:
        raise ProblemError(f"model {name}: wanted num_key_value_heads that divide {query_heads}; got {kv_heads}")
    hidden = text.get("hidden_size") or text.get("n_embd")
    head_dim = _size(text, name, "head_dim", of=hidden // query_heads if isinstance(hidden, int) else None)
    dtype = str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or config.get("dtype") or "")
    left_out = [reason for key, reason in _BEYOND.items() if text.get(key)]
    left_out += [why for kind, why in _BEYOND_TYPES.items() if str(text.get("model_type", "")).startswith(kind)]
    if left_out:
        every = f"all {number} layers: {', '.join(left_out)}"
        return Model(name, query_heads, kv_heads, head_dim, "bfloat16", (), 0, name, (every,))
    kinds = _layer_kinds(text, number)
    without = [kind for kind in dict.fromkeys(kinds) if kind in _BEYOND_LAYERS]
    return Model(
        name=name,
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=dtype if dtype in DTYPE_BYTES else "bfloat16",  # type: ignore[arg-type]
        layers=_grouped([window for kind in kinds if (window := _window(kind, text)) is not None]),
        image_tokens=_image_tokens(config),
        source=name,
        left_out=tuple(f"{kinds.count(kind)} layers: {_BEYOND_LAYERS[kind]}" for kind in without),
    )


def problems(
    model: Model,
    device: str = "cpu",
    *,
    contexts: Sequence[int] = (1024, 4096),
    batches: Sequence[int] = (1,),
    images: int = 0,
    image_tokens: int = 0,
) -> tuple[list[Weighted], list[str]]:
    """Prefill of one prompt and decode at each batch, over each context; and a line for all that is left out.

    A context is of text: ``images`` come on top, of ``image_tokens`` each (0: as the model has them). A problem weighs
    as many calls as layers ask it for one token. A window that holds the whole context hides nothing; of a
    shorter one decode sees the last keys, as a cache that slides keeps them, and prefill is left out.
    """
    each = image_tokens or model.image_tokens
    if images and not each:
        raise ProblemError(f"model {model.name}: wanted the tokens of an image, which it doesn't tell; got none")
    found: dict[Problem, float] = {}
    left_out = [f"{model.name}: left out {line}" for line in model.left_out]
    for context in contexts:
        keys = context + images * each
        for layers in model.layers:
            seen = min(keys, layers.window) if layers.window else keys
            if seen == keys:
                count(found, problem_of(model, 1, keys, keys, device, f"{model.name} prefill {keys}"), layers.number)
            else:
                left_out.append(
                    f"{model.name}: left out prefill of {keys} tokens in {layers.number} layers: "
                    f"a window of {layers.window} keys"
                )
            for batch in batches:
                count(found, problem_of(model, batch, 1, seen, device, f"{model.name} decode {seen}"), layers.number)
    return [Weighted(problem, weight) for problem, weight in found.items()], left_out


def count(found: dict[Problem, float], problem: Problem, number: int) -> None:
    """Add ``number`` calls of ``problem`` to ``found``."""
    found[problem] = found.get(problem, 0.0) + number


def problem_of(model: Model, batch: int, queries: int, keys: int, device: str, name: str = "") -> Problem:
    """One layer's attention of ``queries`` to ``keys`` by ``batch`` sequences, each of its own length."""
    return Problem(
        batch=batch,
        query_heads=model.query_heads,
        kv_heads=model.kv_heads,
        query_length=queries,
        key_length=keys,
        head_dim=model.head_dim,
        value_dim=model.head_dim,
        dtype=model.dtype,
        device=device,
        is_causal=queries > 1,
        has_key_lengths=batch > 1,
        name=name,
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for part in _TEXT_PARTS:
        if isinstance(config.get(part), Mapping):
            return _text_part(config[part])
    return config


def _size(text: Mapping[str, Any], name: str, *keys: str, of: int | None = None) -> int:
    """The first of ``keys`` that the config has; ``of`` where it has none."""
    found = next((text[key] for key in keys if text.get(key) is not None), of)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ProblemError(f"model {name}: wanted {keys[0]}, a number of 1 or more; got {found}")
    return found


def _image_tokens(config: Mapping[str, Any]) -> int:
    """What an image is pooled to, where the config says so; 1 is what models of any resolution hold there."""
    found = config.get("mm_tokens_per_image") or config.get("image_seq_length")
    return found if isinstance(found, int) and found > 1 else 0


def _layer_kinds(text: Mapping[str, Any], number: int) -> list[str]:
    """``full_attention``, ``sliding_attention`` or another of transformers' names, a layer each."""
    if isinstance(text.get("layer_types"), list):
        return [str(kind) for kind in text["layer_types"]]
    if not text.get("sliding_window") or text.get("use_sliding_window") is False:
        return ["full_attention"] * number
    if pattern := text.get("sliding_window_pattern"):
        return ["full_attention" if (layer + 1) % pattern == 0 else "sliding_attention" for layer in range(number)]
    first = int(text.get("max_window_layers") or 0)
    return ["sliding_attention" if layer >= first else "full_attention" for layer in range(number)]


def _window(kind: str, text: Mapping[str, Any]) -> int | None:
    """How many keys a layer sees, 0 for all; None for what is left out."""
    if kind in _BEYOND_LAYERS:
        return None
    return int(text["sliding_window"]) if kind == "sliding_attention" else 0


def _grouped(windows: Iterable[int]) -> tuple[Layers, ...]:
    counts: dict[int, int] = {}
    for window in windows:
        counts[window] = counts.get(window, 0) + 1
    return tuple(Layers(number, window) for window, number in sorted(counts.items()))


def _of_row(name: str) -> Model:
    row = _table()[name]
    full = row.layers // row.full_attention_every if row.full_attention_every else row.layers
    layers = [Layers(full)] + [Layers(row.layers - full, row.sliding_window)] * (full < row.layers)
    return Model(
        name,
        row.query_heads,
        row.kv_heads,
        row.head_dim,
        row.dtype,
        tuple(layers),
        row.image_tokens,
        row.source,
    )


@cache
def _table() -> dict[str, _Row]:
    text = files("rls_bench.problems").joinpath("models.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Row])
