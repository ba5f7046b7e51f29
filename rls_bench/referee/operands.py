"""A backend's inputs in memory of its process's own: copied there by the harness, renewed between calls, and compared.

Nothing here bumps a tensor's version, and on a CPU nothing goes through torch: memory is copied and compared by the C
library, whatever a backend does to torch's functions.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rls_bench.problems.inputs import Inputs
from rls_bench.referee.contents import Contents, Mix, Units
from rls_bench.referee.pool import OTHER, STEERING, Pool

_libc = ctypes.CDLL(None)
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove = ctypes.memmove
_AT_ONCE = 1 << 20
# Where queries come from that are of neither draw.
_UNSEEN = "unseen query"


def same_bytes(one: int, other: int, size: int) -> bool:
    """Whether ``size`` bytes at two addresses of this process are alike."""
    return _memcmp(one, other, size) == 0


class _Memory(Protocol):
    """Where one tensor lies: spans of it are written and compared with draws of the pool, by name."""

    tensor: Tensor

    def learn(self, source: str, drawn: Tensor) -> None: ...

    def write(self, source: str, start: int, size: int) -> None: ...

    def holds(self, source: str, start: int, size: int) -> bool: ...


class _HostMemory:
    def __init__(self, tensor: Tensor, sources: dict[str, int]) -> None:
        self.tensor = tensor
        self._place = tensor.data_ptr()
        self._sources = sources

    def learn(self, source: str, drawn: Tensor) -> None:
        self._sources[source] = drawn.data_ptr()

    def write(self, source: str, start: int, size: int) -> None:
        _memmove(self._place + start, self._sources[source] + start, size)

    def holds(self, source: str, start: int, size: int) -> bool:
        return same_bytes(self._place + start, self._sources[source] + start, size)


class _NegatedHostMemory(_HostMemory):
    """Holds the negatives of what the draws say."""

    def write(self, source: str, start: int, size: int) -> None:
        super().write(source, start, size)
        self._turn(self._place + start, size)

    def holds(self, source: str, start: int, size: int) -> bool:
        # Compared a little at a time, for it takes a copy.
        for begin in range(start, start + size, _AT_ONCE):
            count = min(_AT_ONCE, start + size - begin)
            copy = ctypes.create_string_buffer(count)
            _memmove(copy, self._sources[source] + begin, count)
            self._turn(ctypes.addressof(copy), count)
            if not same_bytes(self._place + begin, ctypes.addressof(copy), count):
                return False
        return True

    def _turn(self, place: int, size: int) -> None:
        """Flip the sign of the numbers at an address."""
        item = self.tensor.dtype.itemsize
        memory: Any = (ctypes.c_char * size).from_address(place)
        numbers = np.frombuffer(memory, f"u{item}")
        numbers ^= numbers.dtype.type(1 << (8 * item - 1))


class _DeviceMemory:
    """Copies queue up on the current stream, between the calls."""

    def __init__(self, tensor: Tensor, sources: dict[str, Tensor], is_negated: bool) -> None:
        self.tensor = tensor
        # Unlike detach(), data has a version counter of its own.
        self._alias = tensor.data.flatten().view(torch.uint8)
        self._is_negated = is_negated
        self._sources: dict[str, Tensor] = {}
        for name, source in sources.items():
            self.learn(name, source)

    def learn(self, source: str, drawn: Tensor) -> None:
        on_device = drawn.to(self.tensor.device)
        self._sources[source] = (on_device.neg() if self._is_negated else on_device).flatten().view(torch.uint8)

    def write(self, source: str, start: int, size: int) -> None:
        self._alias[start : start + size].copy_(self._sources[source][start : start + size])

    def holds(self, source: str, start: int, size: int) -> bool:
        span = slice(start, start + size)
        return bool((self._alias[span] == self._sources[source][span]).all())


class Operands:
    """One set of inputs, as the backend receives them; whether it is of negatives, the first contents say for all.

    ``mix`` and ``bias`` tell what the queries and the saliency hold at the moment, unless ``surprise`` laid queries.
    """

    def __init__(self, pool: Pool, contents: Contents) -> None:
        self._pool = pool
        problem = pool.problem
        # Gradients are not so simply turned.
        self._negated = () if problem.requires_grad or not contents.negated else ("query", "key", "value")
        self._units = Units.of(problem)
        self._memories: dict[str, _Memory] = {}
        self._sizes: dict[str, int] = {}
        leaves = ("query", "key", "value") if problem.requires_grad else ()
        for piece in pool.layout.pieces:
            if piece.name.startswith(OTHER):
                continue
            tensor = torch.empty(piece.shape, dtype=getattr(torch, piece.dtype), device=problem.device)
            self._sizes[piece.name] = piece.size
            self._memories[piece.name] = self._memory(piece.name, tensor.requires_grad_(piece.name in leaves))
        for name in self._fixed():
            self._memories[name].write(name, 0, self._sizes[name])
        named = {name: memory.tensor for name, memory in self._memories.items()}
        self.inputs = Inputs(problem=problem, scale=pool.layout.scale, **named)
        query = self._sizes["query"]
        step = query // (problem.batch * problem.query_heads * problem.query_length) * self._units.rows
        self._spans = [(start, min(step, query - start)) for start in range(0, query, step)]
        self.lay(contents)

    def lay(self, contents: Contents) -> None:
        """Have the memory hold ``contents``."""
        self._unseen: Pool | None = None
        self.mix = Mix.at(contents, self._units.count)
        self.bias = contents.bias
        for unit in range(self._units.count):
            self._write_unit(unit)
        for name in STEERING:
            self._memories[name].write(_of(self.bias, name), 0, self._sizes[name])

    def renew(self) -> None:
        """Another call's contents: one unit of the queries changes sides."""
        self._write_unit(self.mix.step())

    def surprise(self, queries: Pool) -> None:
        """Have the queries hold a draw apart, until contents are laid anew."""
        # Its memory must stay mapped as long as it is compared with.
        self._unseen = queries
        self._memories["query"].learn(_UNSEEN, queries.tensors["query"])
        self._memories["query"].write(_UNSEEN, 0, self._sizes["query"])

    def changed(self) -> list[str]:
        """The tensors that don't hold what was written into them."""
        found = [name for name in self._fixed() if not self._memories[name].holds(name, 0, self._sizes[name])]
        query, sides = self._memories["query"], self.mix.sides
        sources = [_UNSEEN if self._unseen else _of(side, "query") for side in sides]
        if not all(query.holds(source, *span) for source, span in zip(sources, self._spans, strict=True)):
            found.append("query")
        for name in STEERING:
            if not self._memories[name].holds(_of(self.bias, name), 0, self._sizes[name]):
                found.append(name)
        # The order of the operator's arguments.
        return [name for name in self._memories if name in found]

    def _fixed(self) -> list[str]:
        return [name for name in self._memories if name not in ("query", *STEERING)]

    def _write_unit(self, unit: int) -> None:
        self._memories["query"].write(_of(self.mix.sides[unit], "query"), *self._spans[unit])

    def _memory(self, name: str, tensor: Tensor) -> _Memory:
        sources = [source for source in (name, OTHER + name) if source in self._pool.tensors]
        is_negated = name in self._negated
        if tensor.is_cuda:
            return _DeviceMemory(tensor, {source: self._pool.tensors[source] for source in sources}, is_negated)
        kind = _NegatedHostMemory if is_negated else _HostMemory
        return kind(tensor, {source: self._pool.address(source) for source in sources})


def _of(side: int, name: str) -> str:
    return OTHER + name if side else name
