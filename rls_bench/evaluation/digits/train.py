"""Trains the shipped models: ``python -m rls_bench.evaluation.digits.train [FOLDER]``.

One thread and fixed seeds: the same machine writes the same files again, in under six minutes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rls_bench.evaluation.digits import checkpoints
from rls_bench.evaluation.digits.grids import SETS, Looks, draw, draw_presence, patches
from rls_bench.evaluation.digits.presence import HuePresence
from rls_bench.evaluation.digits.reader import GridReader, attend_apart

READER_STEPS = 400
PRESENCE_STEPS = 300


def train_reader(seed: int, steps: int = READER_STEPS) -> GridReader:
    """The steered model. It sees some noise and full colour only; four questions are asked of each grid."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, batch, rate = GridReader(), 128, 2e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    for _ in range(steps):
        looks = Looks(0.25 * torch.rand(batch, generator=generator), torch.ones(batch))
        grids = draw(batch, "train", looks, generator, questions=4)
        logits = model.answer(model.prefill(patches(grids.pixels)), grids.hues, attend_apart)
        _update(model, optimizer, cross_entropy(logits.flatten(0, 1), grids.answers.flatten()))
        schedule.step()
    return model.eval().requires_grad_(False)


def train_presence(seed: int, steps: int = PRESENCE_STEPS) -> HuePresence:
    """The saliency model. It sees every degree of noise and fading, and is told which hues are there, not where."""
    torch.manual_seed(1000 + seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    model, batch, rate = HuePresence(), 64, 1e-2
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    for _ in range(steps):
        noise, colour = torch.rand(2, batch, generator=generator)
        pixels, present = draw_presence(batch, "train", Looks(0.5 * noise, 0.25 + 0.75 * colour), generator)
        _update(model, optimizer, binary_cross_entropy_with_logits(model(pixels), present))
        schedule.step()
    return model.eval().requires_grad_(False)


def _update(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def main(folder: Path = checkpoints.FOLDER) -> None:
    """Train every seed, write its checkpoint and print the accuracy without steering on the calibration split."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for seed in checkpoints.SEEDS:
        start = time.process_time()
        checkpoints.save(seed, train_reader(seed), train_presence(seed), folder)
        cpu_s = time.process_time() - start
        reader, _ = checkpoints.load(seed, folder)
        generator = torch.Generator().manual_seed(seed)
        accuracies = []
        for name, look in SETS.items():
            grids = draw(1000, "calibration", look, generator)
            answers = reader.answer(reader.prefill(patches(grids.pixels)), grids.hues, attend_apart).argmax(-1)
            accuracies.append(f"{name} {100 * (answers == grids.answers).float().mean():.1f} %")
        print(f"seed {seed}: {', '.join(accuracies)}; {cpu_s:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else checkpoints.FOLDER)
