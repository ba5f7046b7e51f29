"""A backend's inputs in memory of its process's own: copied there by the harness, renewed between calls, and compared.

Nothing here bumps a tensor's version, and on a CPU nothing goes through torch: memory is copied and compared by the C
library, whatever a backend does to torch's functions.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

import torch
from torch import Tensor

from rls_bench.problems.inputs import Inputs
from rls_bench.referee.contents import Contents, Mix, Units
from rls_bench.referee.pool import OTHER, Pool

_libc = ctypes.CDLL(None)
_memcmp = _libc.memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove = ctypes.memmove


def same_bytes(one: int, other: int, size: int) -> bool:
    """Whether ``size`` bytes at two addresses of this process are alike."""
    return _memcmp(one, other, size) == 0


class _Memory(Protocol):
    """Where one tensor lies: spans of it are written and compared with draws of the pool, by name."""

    tensor: Tensor

    def write(self, source: str, start: int, size: int) -> None: ...

    def holds(self, source: str, start: int, size: int) -> bool: ...


class _HostMemory:
    def __init__(self, tensor: Tensor, sources: dict[str, int]) -> None:
        self.tensor = tensor
        self._place = tensor.data_ptr()
        self._sources = sources

    def write(self, source: str, start: int, size: int) -> None:
        _memmove(self._place + start, self._sources[source] + start, size)

    def holds(self, source: str, start: int, size: int) -> bool:
        return same_bytes(self._place + start, self._sources[source] + start, size)


class _DeviceMemory:
    """Copies queue up on the current stream, between the calls."""

    def __init__(self, tensor: Tensor, sources: dict[str, Tensor]) -> None:
        self.tensor = tensor
        # Unlike detach(), data has a version counter of its own.
        self._alias = tensor.data.flatten().view(torch.uint8)
        self._sources = {name: source.flatten().view(torch.uint8).to(tensor.device) for name, source in sources.items()}

    def write(self, source: str, start: int, size: int) -> None:
        self._alias[start : start + size].copy_(self._sources[source][start : start + size])

    def holds(self, source: str, start: int, size: int) -> bool:
        span = slice(start, start + size)
        return bool((self._alias[span] == self._sources[source][span]).all())


class Operands:
    """One set of inputs, as the backend receives them.

    ``mix`` and ``bias`` tell what the queries and the saliency hold at the moment.
    """

    def __init__(self, pool: Pool, contents: Contents) -> None:
        self._pool = pool
        problem = pool.problem
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
        self.mix = Mix.at(contents, self._units.count)
        self.bias = contents.bias
        for unit in range(self._units.count):
            self._write_unit(unit)
        self._memories["bias"].write(_of(self.bias, "bias"), 0, self._sizes["bias"])

    def renew(self) -> None:
        """Another call's contents: one unit of the queries changes sides."""
        self._write_unit(self.mix.step())

    def changed(self) -> list[str]:
        """The tensors that don't hold what was written into them."""
        found = [name for name in self._fixed() if not self._memories[name].holds(name, 0, self._sizes[name])]
        query, sides = self._memories["query"], self.mix.sides
        if not all(query.holds(_of(sides[unit], "query"), *span) for unit, span in enumerate(self._spans)):
            found.append("query")
        if not self._memories["bias"].holds(_of(self.bias, "bias"), 0, self._sizes["bias"]):
            found.append("bias")
        # The order of the operator's arguments.
        return [name for name in self._memories if name in found]

    def _fixed(self) -> list[str]:
        return [name for name in self._memories if name not in ("query", "bias")]

    def _write_unit(self, unit: int) -> None:
        self._memories["query"].write(_of(self.mix.sides[unit], "query"), *self._spans[unit])

    def _memory(self, name: str, tensor: Tensor) -> _Memory:
        sources = [source for source in (name, OTHER + name) if source in self._pool.tensors]
        if tensor.is_cuda:
            return _DeviceMemory(tensor, {source: self._pool.tensors[source] for source in sources})
        return _HostMemory(tensor, {source: self._pool.address(source) for source in sources})


def _of(side: int, name: str) -> str:
    return OTHER + name if side else name
