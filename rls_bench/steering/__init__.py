"""Controls for steering, in torch alone: bring saliency to a scale, choose heads, strength and moment, and measure."""

from rls_bench.steering.controls import oracle, shuffled, uniform
from rls_bench.steering.gate import Gate, GateMeter, disagreement, expected_saliency, output_doubt, output_entropy
from rls_bench.steering.heads import GroundingHeads, find_grounding_heads, head_mask, layer_mask
from rls_bench.steering.mass import mass_from_lse, solve_strength, spotlight_strength, strength_for_mass
from rls_bench.steering.metrics import (
    Flips,
    attention_mass,
    entropy,
    entropy_reduction_percent,
    flips,
    hit_at_1,
    kl_divergence,
)
from rls_bench.steering.presets import guide, instaboost, pasta, spotlight
from rls_bench.steering.projection import TokenSaliency, project_saliency
from rls_bench.steering.saliency import normalize_saliency
from rls_bench.steering.schedule import MassSchedule, Position, Schedule, target_mass

__all__ = [
    "Flips",
    "Gate",
    "GateMeter",
    "GroundingHeads",
    "MassSchedule",
    "Position",
    "Schedule",
    "TokenSaliency",
    "attention_mass",
    "disagreement",
    "entropy",
    "entropy_reduction_percent",
    "expected_saliency",
    "find_grounding_heads",
    "flips",
    "guide",
    "head_mask",
    "hit_at_1",
    "instaboost",
    "kl_divergence",
    "layer_mask",
    "mass_from_lse",
    "normalize_saliency",
    "oracle",
    "output_doubt",
    "output_entropy",
    "pasta",
    "project_saliency",
    "shuffled",
    "solve_strength",
    "spotlight",
    "spotlight_strength",
    "strength_for_mass",
    "target_mass",
    "uniform",
]
