"""The published experiment: random scores and random saliency, steered by more and more λ.

For each seed, ``g = Generator().manual_seed(seed)``; saliency = |randn(L, g)|, brought to [0, 1]; then
``Z = randn(H, L, L, g) · logit_scale``, ``A = softmax(Z)`` and ``A' = softmax(log(A + eps) + λ · saliency)``. Entropies
and KL are means over heads and queries, then over seeds. Scores stream through in blocks of heads, so that memory holds
one block and not H × L × L.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from rls_bench.attention import steered_attention
from rls_bench.machines import vector_math
from rls_bench.machines.threads import one_thread
from rls_bench.steering.metrics import PUBLISHED_EPS
from rls_bench.steering.saliency import Normalizer, normalize_saliency

# The published table as printed: λ, entropy reduction in percent, KL in nats.
PUBLISHED = (
    ("0.00", "0.0000", "0.000000"),
    ("0.05", "0.0005", "0.000034"),
    ("0.10", "0.0020", "0.000135"),
    ("0.15", "0.0044", "0.000305"),
    ("0.25", "0.0125", "0.000852"),
    ("0.40", "0.0326", "0.002201"),
    ("0.60", "0.0751", "0.005015"),
    ("0.80", "0.1368", "0.009027"),
    ("1.00", "0.2192", "0.014284"),
)
PUBLISHED_STRENGTHS = tuple(float(strength) for strength, _, _ in PUBLISHED)
# Scores handled at a time: a block of this many stays in a core's own cache.
_BLOCK_SCORES = 32768
# torch's CPU generator fills a normal tensor 16 values at a time.
_RNG_BLOCK = 16
# Whatever torch's defaults are.
_PLAIN: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


@dataclass(frozen=True)
class Settings:
    """What to sweep; the defaults are the published experiment.

    With ``backend`` the metrics come from that backend's row statistics instead of the attention matrix, which describe
    the eps = 0 form. Its scores are the very same where ``head_dim`` is None (query holds the rows of Z, key is the
    identity); with a ``head_dim``, query and key are drawn at random and their scores have the spread ``logit_scale``,
    which reaches lengths whose matrix no memory holds.
    """

    length: int = 1024
    heads: int = 32
    seeds: tuple[int, ...] = (0, 1, 2)
    strengths: tuple[float, ...] = PUBLISHED_STRENGTHS
    logit_scale: float = 0.1
    eps: float = PUBLISHED_EPS
    normalize: Normalizer = "minmax"
    backend: str | None = None
    head_dim: int | None = None

    def __post_init__(self) -> None:
        for name in ("length", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if not self.seeds or not self.strengths:
            raise ValueError("seeds, strengths: wanted at least one of each")
        if not all(math.isfinite(strength) for strength in self.strengths):
            raise ValueError(f"strengths: wanted finite numbers, got {self.strengths}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps: wanted a finite number >= 0, got {self.eps}")
        if self.normalize not in get_args(Normalizer):
            raise ValueError(f"normalize: wanted one of {', '.join(get_args(Normalizer))}; got {self.normalize!r}")
        if not math.isfinite(self.logit_scale):
            raise ValueError(f"logit_scale: wanted a finite number, got {self.logit_scale}")
        if self.head_dim is not None and self.backend is None:
            raise ValueError("head_dim: wanted together with backend; the matrix is drawn whole")


@dataclass(frozen=True)
class Row:
    """One λ: entropy reduction in percent of the unsteered entropy, and KL(A ‖ A') in nats."""

    strength: float
    entropy_reduction_percent: float
    kl: float

    def printed(self) -> tuple[str, str, str]:
        """The row with as many decimals as the published table; what rounds to zero is written without a sign."""
        return (
            f"{self.strength:.2f}",
            f"{round(self.entropy_reduction_percent, 4) + 0.0:.4f}",
            f"{round(self.kl, 6) + 0.0:.6f}",
        )


@dataclass(frozen=True)
class Sweep:
    """Means over seeds, and each seed's own rows."""

    settings: Settings
    rows: list[Row]
    seed_rows: dict[int, list[Row]] = field(default_factory=dict)

    def monotone(self, column: str) -> bool:
        """Whether ``column`` ("entropy_reduction_percent" or "kl") grows with every step of λ >= 0, for every seed."""
        for rows in self.seed_rows.values():
            ordered = sorted((row for row in rows if row.strength >= 0), key=lambda row: row.strength)
            values = [getattr(row, column) for row in ordered]
            if not all(later > earlier for earlier, later in itertools.pairwise(values)):
                return False
        return True


@dataclass(frozen=True)
class Example:
    """The first keys of one query for a picture: saliency, base and steered attention, each [keys]."""

    saliency: Tensor
    base: Tensor
    steered: Tensor


def run(settings: Settings, advanced: Callable[[int], None] = lambda heads: None) -> Sweep:
    """Run the sweep on the CPU; ``advanced`` hears of each block of heads that is done (their number)."""
    vector_math.settle()
    seed_rows = {seed: _seed(settings, seed, advanced) for seed in settings.seeds}
    rows = [
        Row(
            strength,
            _mean([rows[index].entropy_reduction_percent for rows in seed_rows.values()]),
            _mean([rows[index].kl for rows in seed_rows.values()]),
        )
        for index, strength in enumerate(settings.strengths)
    ]
    return Sweep(settings, rows, seed_rows)


def example(settings: Settings, strength: float, keys: int = 100) -> Example:
    """Saliency and the attention of the first query of the first head, for the first seed."""
    vector_math.settle()
    generator = torch.Generator().manual_seed(settings.seeds[0])
    saliency = _saliency(settings, generator)
    scores = next(_score_blocks(settings, generator))[0, 0]
    base = scores.softmax(-1)
    steered = (torch.log(base + settings.eps) + strength * saliency).softmax(-1)
    return Example(saliency[:keys], base[:keys], steered[:keys])


def _seed(settings: Settings, seed: int, advanced: Callable[[int], None]) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    saliency = _saliency(settings, generator)
    totals = torch.zeros(len(settings.strengths), 3, dtype=torch.float64, device="cpu")
    if settings.backend is None:
        for scores in _score_blocks(settings, generator):
            with one_thread():
                totals += _matrix_sums(scores, saliency, settings)
            advanced(scores.shape[0])
    else:
        for query, key, scale in _operand_blocks(settings, generator):
            totals += _backend_sums(query, key, scale, saliency, settings)
            advanced(query.shape[1])
    base, steered, kl = (totals / (settings.heads * settings.length)).unbind(-1)
    reduction = torch.where(base != 0, (base - steered) / base * 100, 0)
    return [Row(*row) for row in zip(settings.strengths, reduction.tolist(), kl.tolist(), strict=True)]


def _saliency(settings: Settings, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(settings.length, generator=generator, **_PLAIN).abs()
    return normalize_saliency(drawn, settings.normalize)


def _score_blocks(settings: Settings, generator: torch.Generator) -> Iterator[Tensor]:
    """``randn(H, L, L) · logit_scale`` in blocks of heads [heads, L, L], number for number as one draw would give."""
    square = settings.length**2
    # A block must hold a multiple of 16 values, and the last at least 16, to continue the generator's stream.
    heads = _RNG_BLOCK // math.gcd(_RNG_BLOCK, square)
    left = settings.heads
    while left:
        taken = left if (left - heads) * square < _RNG_BLOCK else heads
        scores = torch.randn(taken, settings.length, settings.length, generator=generator, **_PLAIN)
        yield scores.mul_(settings.logit_scale)
        left -= taken


def _matrix_sums(scores: Tensor, saliency: Tensor, settings: Settings) -> Tensor:
    """Sums over heads and queries of (H(A), H(A'), KL) for each strength, float64 [strengths, 3]."""
    sums = torch.zeros(len(settings.strengths), 3, dtype=torch.float64, device="cpu")
    shifts = [strength * saliency for strength in settings.strengths]
    for rows in scores.flatten(0, 1).split(max(1, _BLOCK_SCORES // settings.length)):
        base = rows.softmax(-1)
        log_base = torch.log(base + settings.eps)
        base_sum = torch.linalg.vecdot(base, log_base).sum(dtype=torch.float64)
        logits, log_steered = torch.empty_like(base), torch.empty_like(base)
        for index, shift in enumerate(shifts):
            torch.add(log_base, shift, out=logits)
            steered = torch.softmax(logits, dim=-1, out=logits)
            torch.add(steered, settings.eps, out=log_steered).log_()
            cross = torch.linalg.vecdot(base, log_steered).sum(dtype=torch.float64)
            entropy = -torch.linalg.vecdot(steered, log_steered).sum(dtype=torch.float64)
            sums[index] += torch.stack([-base_sum, entropy, base_sum - cross])
    return sums


def _operand_blocks(settings: Settings, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Query and key [1, heads, L, D] and their scale, whose scores are Z or, with a head_dim, spread as Z is."""
    if settings.head_dim is None:
        identity = torch.eye(settings.length, **_PLAIN)
        for scores in _score_blocks(settings, generator):
            yield scores[None], identity.expand(1, scores.shape[0], -1, -1), 1.0
        return
    for _ in range(settings.heads):
        query, key = torch.randn(2, 1, 1, settings.length, settings.head_dim, generator=generator, **_PLAIN)
        yield query, key, settings.logit_scale / math.sqrt(settings.head_dim)


def _backend_sums(query: Tensor, key: Tensor, scale: float, saliency: Tensor, settings: Settings) -> Tensor:
    """As ``_matrix_sums``, from the row statistics of ``settings.backend``."""
    sums = torch.zeros(len(settings.strengths), 3, dtype=torch.float64, device="cpu")
    for index, strength in enumerate(settings.strengths):
        _, stats = steered_attention(
            query, key, key, saliency, strength, scale=scale, backend=str(settings.backend), return_stats=True
        )
        columns = (stats.entropy, stats.entropy_steered, stats.kl)
        sums[index] = torch.stack([column.sum(dtype=torch.float64) for column in columns])
    return sums


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
