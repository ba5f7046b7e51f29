"""The tensors of a benchmark problem: real ones, tiled and jittered by seed, or random ones; and their lengths.

Real inputs are queries, keys and values that SmolLM2-135M computed on English text and the saliency of photographs;
``data/REAL_INPUTS.md`` tells their origin and licences.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from rls_bench.problems import served
from rls_bench.problems.binding import bind
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem

# Relative noise on tiled tensors, so that no two tiles are the same.
_JITTER = 0.05


def draw(problem: Problem) -> Inputs:
    """Inputs of ``problem``, the same for the same problem and seed on every machine."""
    generator = Generator().manual_seed(problem.seed)
    make = _random_operands if problem.inputs == "random" else _real_operands
    query, key, value, bias = make(problem, generator)
    query, key, value = (
        operand.to(device=problem.device, dtype=getattr(torch, problem.dtype)).requires_grad_(problem.requires_grad)
        for operand in (query, key, value)
    )
    return bind(
        query,
        key,
        value,
        _lay_out_bias(bias, problem).to(problem.device),
        _strength(problem, generator).to(problem.device),
        eps=problem.eps,
        is_causal=problem.is_causal,
        key_lengths=_key_lengths(problem, generator),
        enable_gqa=problem.group_size > 1,
        return_stats=problem.return_stats,
        check_values=False,
    )


def draw_query(problem: Problem) -> Tensor:
    """Queries like those of ``draw``, of the same shape and dtype, on the CPU; other ones for another seed."""
    generator = Generator().manual_seed(problem.seed)
    is_random = problem.inputs == "random"
    query = _normal(_query_shape(problem), generator) if is_random else _real_query(problem, generator)
    return query.to(getattr(torch, problem.dtype))


def _query_shape(problem: Problem) -> tuple[int, ...]:
    return problem.batch, problem.query_heads, problem.query_length, problem.head_dim


def _random_operands(problem: Problem, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standard normal query, key, value and a bias [B, Hq, Lk]."""
    batch, kv_heads, key_length = problem.batch, problem.kv_heads, problem.key_length
    shapes = (
        _query_shape(problem),
        (batch, kv_heads, key_length, problem.head_dim),
        (batch, kv_heads, key_length, problem.value_dim),
        (batch, problem.query_heads, key_length),
    )
    query, key, value, bias = (_normal(shape, generator) for shape in shapes)
    return query, key, value, bias


def _normal(shape: Sequence[int], generator: Generator) -> Tensor:
    """Standard normal, float32 on the CPU whatever torch's defaults are."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def _real_operands(problem: Problem, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Captured query, key, value and saliency, tiled to the problem's shape and jittered."""
    query = _real_query(problem, generator)
    kv_sources = torch.arange(problem.kv_heads, device="cpu") % 3
    key = _tile("key", problem, generator, kv_sources, problem.key_length, problem.head_dim)
    value = _tile("value", problem, generator, kv_sources, problem.key_length, problem.value_dim)
    return query, key, value, _saliency(problem)


def _real_query(problem: Problem, generator: Generator) -> Tensor:
    heads = torch.arange(problem.query_heads, device="cpu")
    groups = heads // problem.group_size
    # Query head h of the model reads kv head h // 3: a tile keeps query heads with the keys that they were made for.
    sources = groups % 3 * 3 + heads % problem.group_size % 3
    return _tile("query", problem, generator, sources, problem.query_length, problem.head_dim)


def _tile(kind: str, problem: Problem, generator: Generator, heads: Tensor, length: int, width: int) -> Tensor:
    """[B, heads, length, width] from the captured layers: tokens and columns repeat, batches start at other layers."""
    layers = _captured_layers(kind)
    batches = []
    for batch in range(problem.batch):
        first = batch + problem.seed
        columns = torch.cat(
            [layers[(first + i) % len(layers)] for i in range(-(-width // layers[0].shape[-1]))], dim=-1
        )
        tokens = columns.shape[1]
        # The last token of the tile is the last of the text, so that a decode's query is the newest token.
        positions = torch.arange(-length, 0, device="cpu") % tokens
        batches.append(columns[heads][:, positions, :width])
    tiled = torch.stack(batches)
    return tiled * (1.0 + _JITTER * _normal(tiled.shape, generator))


def _saliency(problem: Problem) -> Tensor:
    """Z-scored saliency [B, Hq, Lk]: each (batch, head) reads one of the photographs, pooled to Lk cells."""
    maps = _captured_maps()
    side = int(problem.key_length**0.5) + 1
    pooled = F.interpolate(maps[:, None], size=(side, side), mode="bilinear", antialias=True)
    cells = pooled.flatten(1)[:, : problem.key_length]
    spread = cells.std(-1, keepdim=True, correction=0).clamp_min(1e-6)
    scored = (cells - cells.mean(-1, keepdim=True)) / spread
    batches, heads = (torch.arange(count, device="cpu") for count in (problem.batch, problem.query_heads))
    start = batches[:, None] + heads[None, :] + problem.seed
    return scored[start % len(scored)]


def _lay_out_bias(bias: Tensor, problem: Problem) -> Tensor:
    """``bias`` [B, Hq, Lk] cut down to the problem's layout."""
    if problem.bias_layout == "k":
        return bias[0, 0].contiguous()
    return bias[:, 0].contiguous() if problem.bias_layout == "bk" else bias


def _strength(problem: Problem, generator: Generator) -> Tensor:
    """λ in the problem's layout: the knob itself, or some heads and queries with a share of it."""
    shapes: dict[str, tuple[int, ...]] = {
        "scalar": (),
        "h": (problem.query_heads,),
        "bh": (problem.batch, problem.query_heads),
        "bhq": (problem.batch, problem.query_heads, problem.query_length),
    }
    shape = shapes[problem.strength_layout]
    if not shape:
        return torch.tensor(problem.strength, dtype=torch.float32, device="cpu")
    return problem.strength * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")


def _key_lengths(problem: Problem, generator: Generator) -> Tensor | None:
    """Lengths from half of Lk to all of it, or as they were served; int32 [B]."""
    if not problem.has_key_lengths:
        return None
    if problem.inputs == "served":
        lengths = served.key_lengths(problem.batch, problem.key_length, generator)
    else:
        shortest = max(1, problem.key_length // 2)
        lengths = torch.randint(shortest, problem.key_length + 1, (problem.batch,), generator=generator, device="cpu")
    return lengths.to(device=problem.device, dtype=torch.int32)


@cache
def _captured() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with as_file(files("rls_bench") / "data" / "real_inputs.safetensors") as path:
        return {name: tensor.float() for name, tensor in load_file(path).items()}


def _captured_layers(kind: str) -> list[Tensor]:
    """Every captured layer's tensor of one kind, [heads, tokens, 64]."""
    return [tensor for name, tensor in sorted(_captured().items()) if name.endswith(f".{kind}")]


def _captured_maps() -> Tensor:
    """Saliency maps [photographs, 64, 64] in [0, 1]."""
    return torch.stack([tensor for name, tensor in sorted(_captured().items()) if name.startswith("saliency.")])
