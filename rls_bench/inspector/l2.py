"""A model, not a measurement: a set-associative LRU replay of the tiles that a prefill kernel reads, in launch order.

Blocks start in the order of their program number and take the next free slot of an SM; those that are resident walk
over the keys in step, one tile of keys a round. Every read goes to L2 (cp.async and TMA pass the L1 by). The replay
follows a sample: of every tensor each n-th line, against the cache's size over n. Long sequences walk in wider rounds,
and of a launch with many heads the first are followed.

Real blocks drift apart, a GPU with two L2 partitions may hold a line twice, and others' lines lie in the cache too, so
that each launch is replayed against the whole L2 and against half of it: read the two as a bracket. Compare DRAM bytes,
not hit rates: a profiler counts a line that is still on its way as missed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rls_bench.problems.problem import DTYPE_BYTES, Problem

LINE_BYTES = 128
WAYS = 16
# Lines of the sampled cache, at least: sets enough for the hash to even out.
_LEAST_LINES = 512
# Rounds that a block takes over its keys, at most.
_MAX_ROUNDS = 256
# Launches are followed until every slot was filled this many times.
_WAVES = 3
_TENSORS = ("query", "key", "value", "bias", "out")
# Line numbers of one tensor stay below this.
_SPACING = 1 << 40
_BIAS_BYTES = 4

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tiling:
    """How a kernel cuts its work: score tiles of ``block_m`` × ``block_n``, ``resident`` blocks on the whole GPU."""

    block_m: int
    block_n: int
    resident: int


@dataclass(frozen=True)
class Traffic:
    """Predicted L2 reads of one tensor, bytes of the whole launch.

    ``read`` is what the SMs ask for, ``missed`` what comes from DRAM for it, ``unique`` the tensor's own size.
    """

    read: float
    missed: float
    unique: float

    @property
    def resident(self) -> bool:
        """Whether the tensor stays once it was fetched: no more than 5 % of its bytes come a second time."""
        return self.missed <= 1.05 * self.unique


@dataclass(frozen=True)
class Replay:
    """Predicted L2 behaviour of one launch.

    ``tensors`` are what is read, by name; ``written`` is in bytes. ``followed_heads`` of ``heads`` were replayed.
    """

    tensors: dict[str, Traffic]
    written: float
    followed_heads: int
    heads: int

    @property
    def hit_rate(self) -> float:
        """Share of the bytes read that L2 holds already, 0 to 1."""
        read = sum(traffic.read for traffic in self.tensors.values())
        return 1 - sum(traffic.missed for traffic in self.tensors.values()) / read

    @property
    def dram_bytes(self) -> float:
        """Bytes read from and written to DRAM."""
        return sum(traffic.missed for traffic in self.tensors.values()) + self.written

    @property
    def least_bytes(self) -> float:
        """DRAM bytes if every tensor moved once."""
        return sum(traffic.unique for traffic in self.tensors.values()) + self.written


def launch_order(problem: Problem, block_m: int) -> tuple[Ints, Ints]:
    """Head (batch · Hq + head) and block of queries of each program, in launch order.

    The prefill kernel's own: blocks of one head are neighbours; under a causal mask those with most keys start first.
    """
    blocks = -(-problem.query_length // block_m)
    program = np.arange(problem.batch * problem.query_heads * blocks)
    block = program % blocks
    return program // blocks, blocks - 1 - block if problem.is_causal else block


@cache
def replay(problem: Problem, tiling: Tiling, l2_bytes: int) -> Replay:
    """Replay one forward call of ``problem`` against an L2 of ``l2_bytes``."""
    followed = _followed_heads(problem, tiling)
    heads, blocks = launch_order(problem, tiling.block_m)
    heads, blocks = heads[heads < followed], blocks[heads < followed]
    walk = _Walk.of(problem, tiling, l2_bytes)
    rounds = walk.rounds(problem, tiling)[blocks]
    lines_held = _Cache(l2_bytes // walk.unit_bytes)
    read = np.zeros(len(_TENSORS), dtype=np.int64)
    again = np.zeros(len(_TENSORS), dtype=np.int64)
    seen: set[int] = set()

    started = 0
    program = np.empty(0, dtype=np.int64)
    position = np.empty(0, dtype=np.int64)
    while started < len(heads) or len(program):
        new = np.arange(started, min(len(heads), started + tiling.resident - len(program)))
        started += len(new)
        program, position = np.concatenate([program, new]), np.concatenate([position, np.zeros_like(new)])
        done = position + 1 >= rounds[program]
        touched = [
            walk.query(problem, heads[new], blocks[new], tiling.block_m),
            walk.key(problem, heads[program], position),
            walk.value(problem, heads[program], position),
            walk.bias(problem, heads[program], position),
            walk.out(problem, heads[program[done]], blocks[program[done]], tiling.block_m),
        ]
        read += [len(lines) for lines in touched]
        # Blocks in step that want the same line in one round share one fetch of it.
        lines = np.unique(np.concatenate([lines + index * _SPACING for index, lines in enumerate(touched)]))
        missed = lines_held.touch(lines)
        again += np.bincount([line // _SPACING for line in missed.tolist() if line in seen], minlength=len(_TENSORS))
        seen.update(missed.tolist())
        program, position = program[~done], position[~done] + 1
    return _whole(problem, tiling, read, again, followed)


@dataclass(frozen=True)
class _Walk:
    """Where each tensor's sampled lines lie: one line stands for ``unit_bytes`` of its tensor."""

    keys_a_round: int
    unit_bytes: int

    @classmethod
    def of(cls, problem: Problem, tiling: Tiling, l2_bytes: int) -> _Walk:
        tiles = -(-problem.key_length // tiling.block_n)
        keys = tiling.block_n * -(-tiles // _MAX_ROUNDS)
        tile_bytes = keys * problem.head_dim * DTYPE_BYTES[problem.dtype]
        return cls(keys, max(LINE_BYTES, min(tile_bytes, l2_bytes // _LEAST_LINES)))

    def rounds(self, problem: Problem, tiling: Tiling) -> Ints:
        """Rounds of each block of queries."""
        return -(-_visible_keys(problem, tiling.block_m) // self.keys_a_round)

    def key(self, problem: Problem, head: Ints, position: Ints) -> Ints:
        first = _kv_head(problem, head) * problem.key_length + position * self.keys_a_round
        return self._lines(first, self.keys_a_round, problem.head_dim * DTYPE_BYTES[problem.dtype])

    def value(self, problem: Problem, head: Ints, position: Ints) -> Ints:
        first = _kv_head(problem, head) * problem.key_length + position * self.keys_a_round
        return self._lines(first, self.keys_a_round, problem.value_dim * DTYPE_BYTES[problem.dtype])

    def bias(self, problem: Problem, head: Ints, position: Ints) -> Ints:
        row = {"k": 0 * head, "bk": head // problem.query_heads, "bhk": head}[problem.bias_layout]
        return self._lines(row * problem.key_length + position * self.keys_a_round, self.keys_a_round, _BIAS_BYTES)

    def query(self, problem: Problem, head: Ints, block: Ints, block_m: int) -> Ints:
        first = head * problem.query_length + block * block_m
        return self._lines(first, block_m, problem.head_dim * DTYPE_BYTES[problem.dtype])

    def out(self, problem: Problem, head: Ints, block: Ints, block_m: int) -> Ints:
        first = head * problem.query_length + block * block_m
        return self._lines(first, block_m, problem.value_dim * DTYPE_BYTES[problem.dtype])

    def _lines(self, first_row: Ints, rows: int, row_bytes: int) -> Ints:
        """Sampled lines of ``rows`` rows from each of ``first_row``, in one flat array."""
        first = -(-first_row * row_bytes // self.unit_bytes)
        last = -(-(first_row + rows) * row_bytes // self.unit_bytes)
        number = last - first
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        return np.repeat(first, number) + within


class _Cache:
    """Set-associative, least recently used goes first."""

    def __init__(self, lines: int) -> None:
        self._ways = max(1, min(WAYS, lines))
        self._sets: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(max(1, lines // self._ways))]

    def touch(self, lines: Ints) -> Ints:
        """Read distinct ``lines`` in turn; those that were not there, which take the place of the oldest."""
        missed = []
        for line, index in zip(lines.tolist(), (_mixed(lines) % np.uint64(len(self._sets))).tolist(), strict=True):
            held = self._sets[index]
            if line in held:
                held.move_to_end(line)
                continue
            missed.append(line)
            if len(held) == self._ways:
                held.popitem(last=False)
            held[line] = None
        return np.array(missed, dtype=np.int64)


def _mixed(lines: Ints) -> NDArray[np.uint64]:
    """Lines as well mixed numbers: like the hardware's hash, it keeps power-of-two strides from sharing few sets.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    mixed = lines.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _kv_head(problem: Problem, head: Ints) -> Ints:
    batch, query_head = head // problem.query_heads, head % problem.query_heads
    return batch * problem.kv_heads + query_head // problem.group_size


def _visible_keys(problem: Problem, block_m: int) -> Ints:
    """Keys that each block of queries walks over, at least one."""
    blocks = np.arange(-(-problem.query_length // block_m))
    if not problem.is_causal:
        return np.full(len(blocks), problem.key_length)
    last_rows = np.minimum((blocks + 1) * block_m, problem.query_length)
    return np.clip(last_rows + problem.key_length - problem.query_length, 1, problem.key_length)


def _followed_heads(problem: Problem, tiling: Tiling) -> int:
    """Heads enough to fill every slot ``_WAVES`` times, and to go from one head to the next."""
    blocks = -(-problem.query_length // tiling.block_m)
    return min(problem.batch * problem.query_heads, max(2, -(-_WAVES * tiling.resident // blocks)))


def _whole(problem: Problem, tiling: Tiling, read: Ints, again: Ints, followed: int) -> Replay:
    """Bytes of the whole launch: every tensor is fetched once, and again at the rate of the sample."""
    item = DTYPE_BYTES[problem.dtype]
    heads = problem.batch * problem.query_heads
    walked = int(_visible_keys(problem, tiling.block_m).sum()) * heads
    rows = heads * problem.query_length
    keys = problem.batch * problem.kv_heads * problem.key_length
    bias_rows = {"k": 1, "bk": problem.batch, "bhk": heads}[problem.bias_layout]
    sizes = {
        "query": (rows * problem.head_dim * item, rows * problem.head_dim * item),
        "key": (walked * problem.head_dim * item, keys * problem.head_dim * item),
        "value": (walked * problem.value_dim * item, keys * problem.value_dim * item),
        "bias": (walked * _BIAS_BYTES, bias_rows * problem.key_length * _BIAS_BYTES),
    }
    tensors = {
        name: Traffic(float(total), unique + float(total * again[index] / max(read[index], 1)), float(unique))
        for index, (name, (total, unique)) in enumerate(sizes.items())
    }
    return Replay(tensors, float(problem.output_bytes), followed, heads)
