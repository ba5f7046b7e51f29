"""Captures the real inputs that benchmarks draw from: ``python -m rls_bench.evaluation.capture [FILE]``.

Query, key and value are what three layers of SmolLM2-135M-Instruct hand to attention while it reads the opening of
"Alice's Adventures in Wonderland"; saliency is the spectral residual of four photographs. The file is shipped, with
its origin and licences in rls_bench/data/REAL_INPUTS.md; run this only to make it anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rls_bench.evaluation import smollm2
from rls_bench.evaluation.extra import require
from rls_bench.evaluation.texts import read

LAYERS = (4, 14, 26)
TOKENS = 512
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SALIENCY_SIZE = 64
FILE = Path(__file__).parents[1] / "data" / "real_inputs.safetensors"


def attention_inputs(layers: tuple[int, ...] = LAYERS, tokens: int = TOKENS) -> dict[str, Tensor]:
    """What ``layers`` hand to attention, after RoPE, float16.

    ``layer_NN.query`` [9, tokens, 64], ``layer_NN.key`` and ``layer_NN.value`` [3, tokens, 64]; raises ValueError
    where the text has fewer tokens.
    """
    model, tokenizer = smollm2.load(task="capture")
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    captured: dict[str, Tensor] = {}

    def record(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Any:
        if module.layer_idx in layers:
            for name, tensor in (("query", query), ("key", key), ("value", value)):
                captured[f"layer_{module.layer_idx:02d}.{name}"] = tensor[0].half().contiguous()
        return sdpa_attention_forward(module, query, key, value, *rest, **options)

    AttentionInterface.register("rls_capture", record)
    model.set_attn_implementation("rls_capture")
    ids = tokenizer(read("alice"), return_tensors="pt").input_ids[:, :tokens]
    if ids.shape[1] < tokens:
        raise ValueError(f"tokens: wanted at most the {ids.shape[1]} tokens of the text; got {tokens}")
    with torch.inference_mode():
        model(ids, use_cache=False)
    return captured


def saliency_maps(size: int = SALIENCY_SIZE) -> dict[str, Tensor]:
    """``saliency.NAME`` [size, size] float16 in [0, 1], one for each of PHOTOGRAPHS, squeezed to a square."""
    require("cv2", "skimage", task="capture")
    import cv2
    from skimage import data

    extractor = cv2.saliency.StaticSaliencySpectralResidual.create()
    maps = {}
    for name in PHOTOGRAPHS:
        photograph = cv2.cvtColor(getattr(data, name)(), cv2.COLOR_RGB2BGR)
        found, saliency = extractor.computeSaliency(photograph)
        if not found:
            raise RuntimeError(f"OpenCV found no saliency in the photograph {name!r}")
        small = cv2.resize(saliency, (size, size), interpolation=cv2.INTER_AREA)
        maps[f"saliency.{name}"] = torch.from_numpy(small).half()
    return maps


def capture(path: Path = FILE) -> None:
    """Write ``attention_inputs`` and ``saliency_maps`` to ``path``."""
    tensors = {**attention_inputs(), **saliency_maps()}
    save_file(tensors, path, metadata={"model": "SmolLM2-135M-Instruct Q4_1", "text": "alice"})


if __name__ == "__main__":
    capture(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
