"""The trained models that are shipped, one file a training seed, in float16."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rls_bench.evaluation.digits.presence import HuePresence
from rls_bench.evaluation.digits.reader import GridReader

SEEDS = (0, 1, 2)
FOLDER = Path(__file__).parents[2] / "data" / "digits"


def save(seed: int, reader: GridReader, presence: HuePresence, folder: Path = FOLDER) -> None:
    """Write ``seed_N.safetensors``: tensors named ``reader.*`` and ``presence.*``."""
    tensors = {f"reader.{name}": tensor for name, tensor in reader.state_dict().items()}
    tensors |= {f"presence.{name}": tensor for name, tensor in presence.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in tensors.items()}
    save_file(halves, folder / f"seed_{seed}.safetensors")


def load(seed: int, folder: Path = FOLDER) -> tuple[GridReader, HuePresence]:
    """Both models of one seed in float32, for inference; raises FileNotFoundError for a seed that wasn't trained."""
    tensors = load_file(folder / f"seed_{seed}.safetensors")
    reader, presence = GridReader(), HuePresence()
    for prefix, model in (("reader.", reader), ("presence.", presence)):
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        model.load_state_dict({name: t.float() if t.dtype == torch.float16 else t for name, t in state.items()})
        model.eval().requires_grad_(False)
    return reader, presence
