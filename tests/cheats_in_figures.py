"""More backends that look right and are not: figures that drift, statistics that lie, and what is kept for too long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from cheats import Trick, right
from rls_baselines.eager import eager_attention
from torch import Tensor

from rls_bench.backends.interface import AttentionStats
from rls_bench.problems.inputs import Inputs

# Calls that are right, so that the first checks pass.
_WARM = 6


def _once_warm(spoilt: Callable[[Inputs], Any]) -> Callable[[Inputs], Callable[[int], Any]]:
    return lambda inputs: lambda count: spoilt(inputs) if count >= _WARM else right(inputs)


def one_call_behind_once_warm(inputs: Inputs) -> Callable[[int], Any]:
    """A pipeline of depth two, of which nobody knows."""
    results: list[Tensor] = []

    def call(count: int) -> Any:
        results.append(right(inputs))
        return results.pop(0).clone() if count >= _WARM else results[-1]

    return call


def smoothed_with_the_call_before_once_warm(inputs: Inputs) -> Callable[[int], Any]:
    state = torch.empty(0)

    def call(count: int) -> Any:
        nonlocal state
        state = torch.lerp(state, right(inputs), 0.5) if count >= _WARM else right(inputs)
        return state.clone()

    return call


def finished_by_the_next_call_once_warm(inputs: Inputs) -> Callable[[int], Any]:
    """Returns what the memory held, which is right as long as the inputs stay; the next call writes what is due."""
    due: list[tuple[Tensor, Tensor]] = []

    def call(count: int) -> Any:
        wanted = right(inputs)
        output = due[-1][1].clone() if count >= _WARM else wanted.clone()
        while due:
            before, is_due = due.pop()
            before.copy_(is_due)
        due.append((output, wanted))
        return output

    return call


def strength_packed_once(inputs: Inputs) -> Callable[[int], Any]:
    packed = replace(inputs, strength=inputs.strength.clone())
    return lambda count: right(packed)


_PACKED: dict[Any, tuple[Tensor, Tensor]] = {}


def packed_by_shape(inputs: Inputs) -> Callable[[int], Any]:
    """Keys and values are laid out once a shape, for all who have such."""
    key, value = _PACKED.setdefault(inputs.key.shape, (inputs.key.clone(), inputs.value.clone()))
    packed = inputs.with_operands(inputs.query, key, value)
    return lambda count: right(packed)


def values_packed_by_shape(inputs: Inputs) -> Callable[[int], Any]:
    _, value = _PACKED.setdefault(inputs.key.shape, (inputs.key.clone(), inputs.value.clone()))
    packed = inputs.with_operands(inputs.query, inputs.key, value)
    return lambda count: right(packed)


def scales_its_keys_and_back_once_warm(inputs: Inputs) -> Callable[[int], Any]:
    """In place and undone, which rounds."""

    def call(count: int) -> Any:
        if count < _WARM:
            return right(inputs)
        inputs.key.mul_(inputs.scale / 3)
        result = right(replace(inputs, scale=3.0))
        inputs.key.div_(inputs.scale / 3)
        return result

    return call


def in_two_bfloat16_parts(inputs: Inputs) -> Any:
    """Of the three products that make up a float32 one, the two largest: good to 16 bits."""

    def rounded(tensor: Tensor) -> Tensor:
        high = tensor.bfloat16().float()
        return high + (tensor - high).bfloat16().float()

    return right(inputs.with_operands(rounded(inputs.query), rounded(inputs.key), rounded(inputs.value)))


def _weighed(inputs: Inputs, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """Attention with other weights than softmax of the steered scores [B, Hq, Lq, Lk]."""
    _, _, steered = eager_attention(
        inputs.query, inputs.key, inputs.value, inputs.logit_bias(), None, eps=0.0, scale=inputs.scale
    )
    return weigh(steered) @ inputs.value


def without_small_weights(inputs: Inputs) -> Any:
    """Keys that hardly count are left out, though not so few."""

    def weigh(scores: Tensor) -> Tensor:
        weights = scores.softmax(-1)
        return weights.masked_fill(weights < 2e-3, 0.0)

    return _weighed(inputs, weigh)


def by_a_short_exponential(inputs: Inputs) -> Any:
    """2 to the fraction by a polynomial of third degree, which is good to 1e-4."""

    def weigh(scores: Tensor) -> Tensor:
        power = (scores - scores.amax(-1, keepdim=True)) / math.log(2.0)
        whole = power.floor()
        part = power - whole
        short = 1 + part * (0.695556856 + part * (0.226173572 + part * 0.0781455737))
        weights = torch.ldexp(short, whole)
        return weights / weights.sum(-1, keepdim=True)

    return _weighed(inputs, weigh)


def with_a_row_in_float16(inputs: Inputs) -> Any:
    output = right(inputs)
    output[0, 0, 3] = output[0, 0, 3].half().float()
    return output


def dithered(inputs: Inputs) -> Any:
    output = right(inputs)
    return output * (1 + 5e-5 * torch.randn_like(output))


def in_half_the_bytes(inputs: Inputs) -> Any:
    return right(inputs).half()


def without_its_batch_axis(inputs: Inputs) -> Any:
    return right(inputs)[0]


def for_a_batch_of_two(inputs: Inputs) -> Any:
    return right(inputs).expand(2, -1, -1, -1)


def negated_by_who_reads(inputs: Inputs) -> Any:
    """A view that says its numbers are to be negated."""
    return torch._neg_view(-right(inputs))


def _with_statistics(change: Callable[[AttentionStats], Any]) -> Callable[[Inputs], Any]:
    def spoilt(inputs: Inputs) -> Any:
        output, stats = right(inputs)
        return output, change(stats)

    return spoilt


def statistics_one_call_behind(inputs: Inputs) -> Callable[[int], Any]:
    stats: list[AttentionStats] = []

    def call(count: int) -> Any:
        output, now = right(inputs)
        stats.append(now)
        return output, stats.pop(0) if count >= _WARM else now

    return call


def statistics_in_one_buffer(inputs: Inputs) -> Callable[[int], Any]:
    buffers = [torch.empty_like(each) for each in right(inputs)[1]]

    def call(count: int) -> Any:
        output, stats = right(inputs)
        if count < _WARM:
            return output, stats
        return output, AttentionStats(*(place.copy_(each) for place, each in zip(buffers, stats, strict=True)))

    return call


def _kept_apart(inputs: Inputs, name: Callable[[Tensor], Any]) -> Callable[[int], Any]:
    """Results of each row or head kept apart, by what ``name`` makes of its query [B, Hq, Lq, D]."""
    known: dict[Any, Tensor] = {}

    def call(count: int) -> Any:
        saliency = float(inputs.bias.flatten()[0])
        names = [(saliency, which, each) for which, each in enumerate(name(inputs.query))]
        if any(each not in known for each in names):
            parts = right(inputs).flatten(0, 1 if len(names) == inputs.query.shape[1] else 2)
            known.update({each: part for each, part in zip(names, parts, strict=True) if each not in known})
        return torch.stack([known[each] for each in names]).reshape(*inputs.query.shape[:3], -1)

    return call


def kept_row_by_row(inputs: Inputs) -> Callable[[int], Any]:
    return _kept_apart(inputs, lambda query: query.sum(-1, dtype=torch.float64).flatten().tolist())


def folded_after_twenty_calls(inputs: Inputs) -> Callable[[int], Any]:
    """Its inputs are constants by then, as a compiler folds what it captured."""
    kept: list[Any] = []

    def call(count: int) -> Any:
        if count < 20:
            kept[:] = [right(inputs)]
        return kept[0].clone()

    return call


def right_on_old_queries(inputs: Inputs) -> Callable[[int], Any]:
    """Knows each row that it was shown in its first calls, and is at a loss with another."""
    known: set[float] = set()

    def call(count: int) -> Any:
        rows = inputs.query.sum(-1, dtype=torch.float64).flatten().tolist()
        is_new = sum(row not in known for row in rows) > len(rows) // 2
        known.update(rows)
        return right(inputs) * (1.5 if is_new and count > 2 else 1.0)

    return call


def kept_head_by_head(inputs: Inputs) -> Callable[[int], Any]:
    """As the cache of a server that decodes, by head and query."""
    return _kept_apart(inputs, lambda query: query.sum((-1, -2), dtype=torch.float64).flatten().tolist())


class _Lazy:
    """Five statistics, once somebody asks for them."""

    def __init__(self, work: Callable[[], AttentionStats]) -> None:
        self._work = work

    def __iter__(self) -> Any:
        return iter(self._work())


# By name: the trick.
CHEATS: dict[str, Trick] = {
    made.__name__: Trick(made)
    for made in (
        one_call_behind_once_warm,
        smoothed_with_the_call_before_once_warm,
        finished_by_the_next_call_once_warm,
        folded_after_twenty_calls,
        right_on_old_queries,
        packed_by_shape,
        values_packed_by_shape,
        scales_its_keys_and_back_once_warm,
    )
}
CHEATS["kept_row_by_row"] = Trick(kept_row_by_row, asks={"key_length": 8192}, word="failed")
CHEATS["kept_head_by_head"] = Trick(
    kept_head_by_head, asks={"query_heads": 8, "query_length": 1, "key_length": 8192}, word="failed"
)
CHEATS["strength_packed_once"] = Trick(strength_packed_once, asks={"strength_layout": "h"})
CHEATS |= {
    f"{spoilt.__name__}_once_warm": Trick(_once_warm(spoilt))
    for spoilt in (
        in_two_bfloat16_parts,
        without_small_weights,
        by_a_short_exponential,
        with_a_row_in_float16,
        dithered,
        in_half_the_bytes,
        without_its_batch_axis,
        for_a_batch_of_two,
        negated_by_who_reads,
    )
}
CHEATS |= {
    name: Trick(made, asks={"return_stats": True})
    for name, made in {
        "statistics_one_call_behind_once_warm": statistics_one_call_behind,
        "statistics_in_one_buffer_once_warm": statistics_in_one_buffer,
        "statistics_to_base_two_once_warm": _once_warm(
            _with_statistics(lambda stats: stats._replace(lse=stats.lse / math.log(2.0)))
        ),
        "statistics_unsteered_once_warm": _once_warm(
            _with_statistics(lambda stats: stats._replace(lse_steered=stats.lse.clone()))
        ),
        "statistics_in_half_the_bytes_once_warm": _once_warm(
            _with_statistics(lambda stats: AttentionStats(*(each.half() for each in stats)))
        ),
        "statistics_lazy_once_warm": _once_warm(_with_statistics(lambda stats: _Lazy(lambda: stats))),
    }.items()
}
globals().update({name.upper(): cheat for name, cheat in CHEATS.items()})
