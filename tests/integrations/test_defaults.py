"""A steered model, and what prepares its saliency, are the same whatever torch's default dtype is."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import DECODED, LENGTH, STRENGTH, build, saliency, tokens

from rls_bench.integrations.transformers import steer
from rls_bench.steering import Gate, project_saliency, shuffled, spotlight, strength_for_mass
from rls_bench.steering.schedule import linear


def figures(model: Any, bias: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a user sees of a steered model, and of what is given to it."""
    gate = Gate(signal="entropy", threshold=0.5, softness=0.1, initial=0.3)
    with (
        torch.no_grad(),
        steer(
            model, bias=bias, strength=STRENGTH, schedule=linear(1.0, 0.3, length=9), gate=gate, stats=True
        ) as control,
    ):
        model.generate(tokens(2, LENGTH), max_new_tokens=DECODED, do_sample=False, eos_token_id=None)
        logits = model(tokens(2, LENGTH)).logits
    picture = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return {
        "logits": logits,
        **{name: control.stats.stacked(name) for name in ("entropy", "entropy_steered", "kl")},
        "shuffled": shuffled(torch.arange(999.0, dtype=torch.float32), torch.Generator().manual_seed(0)),
        "projected": project_saliency(picture, (3, 3), (2, 11), length=12).values,
        "solved": strength_for_mass(torch.tensor([0.2, 0.3], dtype=torch.float64), 0.7),
        "placed": spotlight([1, 3])["bias"],
    }


def test_figures_are_those_of_float32_under_any_default_dtype() -> None:
    model, bias = build("llama"), saliency(2)
    wanted = figures(model, bias)
    before = torch.get_default_dtype()
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found = figures(model, bias)
        finally:
            torch.set_default_dtype(before)
        for name, figure in found.items():
            assert figure.dtype == wanted[name].dtype, name
            torch.testing.assert_close(figure, wanted[name], atol=1e-6, rtol=1e-6, msg=name)
