"""What of a process's threads and numerics switches a backend has changed; whatever it is, a cell's record tells."""

from __future__ import annotations

import torch


def settings() -> dict[str, str]:
    """Threads, and every switch that changes what torch computes with, as they stand now."""
    found = {
        "threads": torch.get_num_threads(),
        "default_dtype": torch.get_default_dtype(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": _autocast("cpu"),
        "mkldnn": torch.backends.mkldnn.enabled,
    }
    if torch.cuda.is_available():
        found |= {
            "autocast_cuda": _autocast("cuda"),
            "cuda_matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "cuda_reduced_bf16": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        }
    return {name: str(value).removeprefix("torch.") for name, value in found.items()}


def _autocast(device: str) -> str:
    return str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "off"
