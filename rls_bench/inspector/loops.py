"""The loops of a kernel's SASS, and which of them do the work."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import networkx as nx

from rls_bench.inspector.sass import BRANCHES, ENDS, FP32, PACKED_FP32, Function, Instruction


@dataclass(frozen=True)
class Loop:
    """The instructions of one loop body, from its header to its last backward branch.

    Blocks that lie outside that range are left out: ptxas moves the slow path of a barrier wait there.
    Conditional blocks inside the range count as executed.
    """

    start: int
    end: int
    instructions: tuple[Instruction, ...]

    @property
    def mix(self) -> Counter[str]:
        """Instructions by group."""
        return Counter(instruction.group for instruction in self.instructions)

    @property
    def opcodes(self) -> Counter[str]:
        """Instructions by opcode without modifiers."""
        return Counter(instruction.base for instruction in self.instructions)

    @property
    def fp32_lanes(self) -> int:
        """FP32 operations a thread; a packed instruction does two."""
        return sum(
            1 + (instruction.base in PACKED_FP32) for instruction in self.instructions if instruction.base in FP32
        )


def loops(function: Function) -> list[Loop]:
    """Every natural loop of ``function`` (a backward edge whose head dominates it), by address."""
    blocks, graph = _flow(function)
    dominators = nx.immediate_dominators(graph, _ENTRY)
    latches: dict[int, list[int]] = {}
    for tail, head in graph.edges:
        if tail != _ENTRY and _dominates(dominators, head, tail):
            latches.setdefault(head, []).append(tail)
    found = []
    for head, tails in sorted(latches.items()):
        inside = graph.subgraph(node for node in graph if node != head)
        members = {head, *tails}
        for tail in tails:
            if tail != head:
                members |= nx.ancestors(inside, tail) & dominators.keys()
        members = {node for node in members if _dominates(dominators, head, node)}
        last = max(blocks[tail][-1].address for tail in tails)
        body = [
            instruction
            for node in sorted(members)
            for instruction in blocks[node]
            if last < head or head <= instruction.address <= last
        ]
        found.append(Loop(head, last, tuple(body)))
    return found


_ENTRY = -1


def _flow(function: Function) -> tuple[dict[int, list[Instruction]], nx.DiGraph]:
    """Basic blocks by start address and the graph between them, behind one artificial entry."""
    code = function.instructions
    leaders = {code[0].address} if code else set()
    for instruction, following in zip(code, (*code[1:], None), strict=True):
        ends = instruction.base in BRANCHES or instruction.base in ENDS
        if ends and following is not None:
            leaders.add(following.address)
        if instruction.target is not None:
            leaders.add(instruction.target)
    blocks: dict[int, list[Instruction]] = {}
    for instruction in code:
        if instruction.address in leaders:
            current = blocks.setdefault(instruction.address, [])
        current.append(instruction)
    graph = nx.DiGraph()
    graph.add_nodes_from([_ENTRY, *blocks])
    starts = sorted(blocks)
    for start, next_start in zip(starts, [*starts[1:], None], strict=True):
        last = blocks[start][-1]
        if last.target in blocks:
            graph.add_edge(start, last.target)
        if last.falls_through and next_start is not None:
            graph.add_edge(start, next_start)
    # Code that only an indirect branch reaches hangs from the entry, so that its loops are found too.
    reached: set[int] = set()
    for start in starts:
        if start not in reached:
            graph.add_edge(_ENTRY, start)
            reached |= {start, *nx.descendants(graph, start)}
    return blocks, graph


def _dominates(dominators: dict[int, int], head: int, node: int) -> bool:
    if head not in dominators or node not in dominators:
        return False
    while node != head:
        # The entry is its own dominator in some versions of networkx and has none in others.
        if node == _ENTRY or (above := dominators.get(node)) is None or above == node:
            return False
        node = above
    return True


def hot_loops(function: Function) -> list[Loop]:
    """The innermost loops that hold tensor-core instructions, by address.

    A kernel without tensor cores (float32 without tf32) has its innermost loops with MUFU instructions instead.
    """
    return _innermost(function, {"tensor"}) or _innermost(function, {"mufu"})


def working_loops(function: Function) -> list[Loop]:
    """The innermost loops that compute or move data, by address: all but those that wait."""
    return _innermost(function, {"tensor", "mufu", "fp32", "shared", "global", "tensor memory"})


def _innermost(function: Function, groups: set[str]) -> list[Loop]:
    holding = [loop for loop in loops(function) if groups & loop.mix.keys()]
    return [
        loop
        for loop in holding
        if not any(other != loop and loop.start <= other.start and other.end <= loop.end for other in holding)
    ]
