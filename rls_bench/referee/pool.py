"""The draws that a problem's inputs are mixed from, laid out in sealed memory for every worker alike."""

from __future__ import annotations

import hashlib
import mmap
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rls_bench.problems.draw import draw, draw_query
from rls_bench.problems.inputs import Inputs
from rls_bench.problems.problem import Problem
from rls_bench.referee import sealed
from rls_bench.referee.messages import Layout, Piece

# Queries that a backend is judged on whose calls take too long to be timed.
_EXCERPT_QUERIES = 64
_ALIGNMENT = 64
OTHER = "other_"
# Of one draw together. A strength that is one number is the same in all draws, for a kernel may take it once.
STEERING = ("bias", "strength")
_RENEWED = ("query", *STEERING)


class Pool:
    """Sealed draws, mapped for reading.

    ``tensors`` share the mapped memory, so that nobody may write to them.
    """

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self.layout = layout
        self.problem = layout.problem
        self.memory = sealed.reading(descriptor)
        self.tensors = {piece.name: _view(self.memory, piece) for piece in layout.pieces}

    def address(self, name: str) -> int:
        """Where the bytes of a tensor begin in this process's memory."""
        return self.tensors[name].data_ptr()

    def inputs(self, query: int | Tensor, bias: int) -> Inputs:
        """The pure inputs of one pair of draws, 0 or 1 each, in the shared memory itself; or of queries of another."""
        plain = replace(self.problem, requires_grad=False)
        rest = [name for name in ("key", "value", "key_lengths") if name in self.tensors]
        chosen = {name: self.tensors[OTHER * bias + name] for name in STEERING} | {n: self.tensors[n] for n in rest}
        chosen["query"] = query if isinstance(query, Tensor) else self.tensors[OTHER * query + "query"]
        on_device = {name: tensor.to(plain.device) for name, tensor in chosen.items()}
        return Inputs(problem=plain, scale=self.layout.scale, **on_device)


def fill(problem: Problem, salt: str, excerpt: bool) -> tuple[int, Layout]:
    """Draw the inputs of ``problem`` and, by ``salt``, the other queries and saliency: sealed memory and its layout.

    ``excerpt``: only as much as a backend is judged on whose calls take minutes.
    """
    # Nothing of a benchmark's inputs hangs on the device, so they are drawn where the memory is.
    on_cpu = replace(problem, device="cpu", requires_grad=False)
    first, second = (_drawn(each, excerpt) for each in (on_cpu, _salted(on_cpu, salt)))
    named = dict(first.tensors()) | {OTHER + name: getattr(second, name) for name in _RENEWED}
    whole = replace(first.problem, device=problem.device, requires_grad=problem.requires_grad, seed=problem.seed)
    return sealed.seal(_chunks(named)), Layout(whole, first.scale, _pieces(named))


def fill_unseen(layout: Layout, salt: str) -> tuple[int, Layout]:
    """Draw, by ``salt``, queries alone, for the inputs that ``layout`` describes: sealed memory and its layout."""
    named = {"query": draw_query(_salted(layout.problem, salt))}
    return sealed.seal(_chunks(named)), Layout(layout.problem, layout.scale, _pieces(named))


def excerpt_of(inputs: Inputs) -> Inputs:
    """The first KV head of the first batch element and the last queries that read it.

    That is enough where a call takes minutes. Causal masks are bottom-right aligned, so the last queries keep theirs.
    """
    whole = inputs.problem
    heads, rows = whole.group_size, min(whole.query_length, _EXCERPT_QUERIES)
    spans = {
        "query": (heads, rows),
        "key": (1, None),
        "value": (1, None),
        "bias": (heads, None),
        "strength": (heads, rows),
    }
    parts = {}
    for name, tensor in inputs.tensors().items():
        # An axis of 1 broadcasts, and a span that is longer leaves it alone.
        part = tensor[:1]
        if name in spans:
            head_span, row_span = spans[name]
            part = part[:, :head_span] if row_span is None else part[:, :head_span, -row_span:]
        parts[name] = part.contiguous()
    problem = replace(whole, batch=1, query_heads=heads, kv_heads=1, query_length=rows)
    return Inputs(problem=problem, scale=inputs.scale, **parts)


def _salted(problem: Problem, salt: str) -> Problem:
    """The same problem with a seed of the ``salt``'s."""
    digest = hashlib.sha256(f"{salt} {problem.key}".encode()).digest()
    return replace(problem, seed=int.from_bytes(digest[:4], "little"))


def _pieces(named: dict[str, Tensor]) -> tuple[Piece, ...]:
    """What lies where, where ``named`` tensors are laid out one after another."""
    pieces, place = [], 0
    for name, tensor in named.items():
        size = tensor.numel() * tensor.element_size()
        pieces.append(Piece(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), place, size))
        place += -(-size // _ALIGNMENT) * _ALIGNMENT
    return tuple(pieces)


def _drawn(problem: Problem, excerpt: bool) -> Inputs:
    drawn = replace(draw(problem), problem=problem)
    return excerpt_of(drawn) if excerpt else drawn


def _chunks(named: dict[str, Tensor]) -> Iterator[memoryview | bytes]:
    for tensor in named.values():
        flat = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        yield flat.data
        yield bytes(-flat.size % _ALIGNMENT)


def _view(memory: mmap.mmap, piece: Piece) -> Tensor:
    array = np.frombuffer(memory, dtype=np.uint8, count=piece.size, offset=piece.offset)
    with warnings.catch_warnings():
        # torch warns of memory that must not be written; by this view nobody does.
        warnings.simplefilter("ignore")
        flat = torch.from_numpy(array)
    return flat.view(getattr(torch, piece.dtype)).reshape(piece.shape)
