"""What attention did under steering: entropy, KL and the span's mass, from the kernels' own row statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rls_bench.backends.interface import AttentionStats
from rls_bench.integrations.visibility import View
from rls_bench.steering.gate import expected_saliency
from rls_bench.steering.mass import mass_from_lse


class PassStatistics(NamedTuple):
    """Of the last query of one forward pass, the one that chooses the next token; each float32 [layers, B, Hq].

    Entropies in nats of the unsteered attention A and of the steered A', ``kl`` = KL(A' ‖ A), and the saliency that A
    and A' see: the span's mass, where bias is its indicator. NaN in layers where nothing was steered; the masses are
    also NaN in heads where λ is 0.
    """

    step: int
    entropy: Tensor
    entropy_steered: Tensor
    kl: Tensor
    mass: Tensor
    mass_steered: Tensor


class _Call(NamedTuple):
    layer: int
    rows: slice
    # Each [b, Hq, 1], or of a stacked call [n, Hq, 1], where the last row is the last query's.
    stats: AttentionStats
    # A number, [Hq], or as the statistics.
    strength: float | Tensor
    # E_A'[b], where the statistics don't tell it, as they.
    seen_steered: Tensor | None


class PassRecord:
    """The calls of one pass as they came; what they say is worked out when someone asks."""

    def __init__(self, step: int, batch: int) -> None:
        self.step, self.batch = step, batch
        self._calls: list[_Call] = []

    def add(
        self, layer: int, view: View, stats: AttentionStats, strength: float | Tensor, seen_steered: Tensor | None
    ) -> None:
        """Keep what a call that has the pass's last query says of it."""
        if view.stacked or view.query.shape[2] > 1:
            # Copies, so that the pass's other queries need not stay.
            stats = AttentionStats(*(_last(view, field) for field in stats))
            if isinstance(strength, Tensor) and strength.dim() == 3:
                strength = _last(view, strength)
        self._calls.append(_Call(layer, view.rows, stats, strength, seen_steered))

    def read(self, layers: int, is_span: bool) -> PassStatistics:
        """As tensors; ``is_span`` says that bias is 0 and 1 alone."""
        first = self._calls[0].stats.lse if self._calls else torch.empty(0, 0, 1, dtype=torch.float32, device="cpu")
        read = torch.full((5, layers, self.batch, first.shape[1]), torch.nan, dtype=torch.float32, device=first.device)
        for layer, rows, stats, given, told in self._calls:
            strength = torch.as_tensor(given, dtype=torch.float32, device=first.device)
            strength = strength if strength.dim() == 3 else strength.reshape(1, -1, 1)
            gained = stats.lse_steered - stats.lse
            if is_span:
                seen = mass_from_lse(stats.lse, stats.lse_steered, strength)
                seen_steered = seen * torch.exp(strength - gained)
            else:
                seen = expected_saliency(stats, strength)
                seen_steered = seen if told is None else told.float()
            moved = strength.expand_as(gained) != 0
            # log A' - log A = λ b - gained.
            kl = (strength * seen_steered - gained).clamp_min(0).where(moved, 0.0)
            seen, seen_steered = seen.where(moved, torch.nan), seen_steered.where(moved, torch.nan)
            columns = (stats.entropy, stats.entropy_steered, kl, seen, seen_steered)
            read[:, layer, rows] = torch.stack(columns)[..., 0]
        return PassStatistics(self.step, *read)


class Statistics:
    """Those of every pass of a context, in the order in which they ended: ``len``, an index, and iteration give
    PassStatistics. Also readable while passes go on.
    """

    def __init__(self, layers: int, is_span: bool) -> None:
        self._layers, self._is_span = layers, is_span
        self._records: list[PassRecord] = []

    def add(self, record: PassRecord) -> None:
        """A pass has ended."""
        self._records.append(record)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: int) -> PassStatistics:
        return self._records[place].read(self._layers, self._is_span)

    def __iter__(self) -> Iterator[PassStatistics]:
        return (self[place] for place in range(len(self)))

    def stacked(self, name: str) -> Tensor:
        """One field of all passes, float32 [passes, layers, B, Hq]; raises ValueError where their batches differ."""
        batches = {record.batch for record in self._records}
        if len(batches) != 1:
            raise ValueError(f"statistics: wanted passes of one batch to stack {name}; got batches {sorted(batches)}")
        return torch.stack([getattr(passed, name) for passed in self])


def _last(view: View, per_query: Tensor) -> Tensor:
    return view.of_pass(per_query)[:, :, -1:].clone()
