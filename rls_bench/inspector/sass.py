"""Reads ``cuobjdump -sass``: instructions, loops, and what the hot loop of an attention kernel is made of."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import networkx as nx

# Instructions that occupy a lane of FP32 arithmetic, comparison or selection; the packed forms count once.
FP32 = frozenset(
    {"FADD", "FADD2", "FADD32I", "FCHK", "FFMA", "FFMA2", "FFMA32I", "FMNMX", "FMNMX3"}
    | {"FMUL", "FMUL2", "FMUL32I", "FSEL", "FSET", "FSETP", "FSWZADD"}
)
PACKED_FP32 = frozenset({"FADD2", "FFMA2", "FMUL2"})

_GROUPS = {
    "convert": "F2F F2FP F2I F2IP FRND I2F I2FP I2IP",
    "half": "HADD2 HFMA2 HMNMX2 HMUL2 HSET2 HSETP2 HADD2_32I HFMA2_32I HMUL2_32I",
    "integer": "BMSK BREV FLO IABS IADD IADD3 IDP IMAD IMNMX IMUL ISCADD ISETP LEA LOP LOP3 PLOP3 POPC SGXT SHF SHL "
    "SHR VHMNMX VIADD VIADDMNMX VIMNMX VIMNMX3",
    "move": "CS2R MOV MOV32I MOVM P2R PRMT R2P R2UR S2R S2UR SEL",
    "shared": "LDS LDSM STS STSM ATOMS REDS",
    "global": "ATOM ATOMG LD LDG LDGSTS RED ST STG UBLKCP UBLKPF UTMALDG UTMAPF UTMASTG UTMAREDG",
    "tensor memory": "LDTM STTM LDT STT UTCCP UTCSHIFT",
    "local": "LDL STL",
    "constant": "LDC LDCU ULDC",
    "shuffle": "MATCH REDUX SHFL VOTE",
}
_GROUP_OF = {opcode: group for group, opcodes in _GROUPS.items() for opcode in opcodes.split()}

# /*0be0*/  @!P3 BRA 0x1100 ;
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)
_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.MULTILINE)
_TARGET = re.compile(r"(?:^|[ ,])(0x[0-9a-f]+)$")
_BRANCHES = frozenset({"BRA", "CALL", "JMP", "BRX", "JMX"})
_ENDS = frozenset({"EXIT", "RET", "BRX", "JMX", "KILL"})


@dataclass(frozen=True)
class Instruction:
    """One SASS instruction; ``address`` is its byte offset in the function."""

    address: int
    predicate: str
    opcode: str
    operands: str

    @property
    def base(self) -> str:
        """The opcode without its modifiers: ``HMMA`` of ``HMMA.16816.F32.BF16``."""
        return self.opcode.partition(".")[0]

    @property
    def group(self) -> str:
        """The row of the instruction mix that it belongs to."""
        base = self.base
        if tensor_path(base):
            return "tensor"
        if base == "MUFU":
            return "mufu"
        if base in FP32:
            return "fp32"
        if self.opcode.startswith("IMAD.MOV"):
            return "move"
        if base in _GROUP_OF:
            return _GROUP_OF[base]
        # What the uniform datapath computes once a warp; its barriers and tensor starts are control.
        if base.startswith("U") and not base.startswith(("UTC", "UCGA", "USYNC")):
            return "uniform"
        return "control"

    @property
    def target(self) -> int | None:
        """Address that a branch may jump to; None where it doesn't jump or the target is in a register."""
        if self.base not in _BRANCHES:
            return None
        found = _TARGET.search(self.operands.strip())
        return int(found[1], 16) if found else None

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction can follow."""
        if self.predicate:
            return True
        if self.base in _ENDS:
            return False
        # A condition may also stand among the operands: ``BRA.U !UP0, 0x160``.
        return self.base not in {"BRA", "JMP"} or "," in self.operands


def tensor_path(base: str) -> str:
    """Which tensor-core path an opcode belongs to: ``mma.sync``, ``wgmma``, ``tcgen05``, or empty for none."""
    if base in {"HMMA", "IMMA", "DMMA", "QMMA", "OMMA", "BMMA"}:
        return "mma.sync"
    if base in {"HGMMA", "IGMMA", "QGMMA", "BGMMA"}:
        return "wgmma"
    if base.startswith("UTC") and base.endswith("MMA"):
        return "tcgen05"
    return ""


@dataclass(frozen=True)
class Function:
    """One kernel's instructions in address order."""

    name: str
    instructions: tuple[Instruction, ...]

    @property
    def path(self) -> str:
        """Tensor-core path of the whole function; ``none`` where it has no tensor instruction."""
        found = {tensor_path(instruction.base) for instruction in self.instructions} - {""}
        return " + ".join(sorted(found)) or "none"


def parse(text: str) -> list[Function]:
    """The functions of one ``cuobjdump -sass`` listing. Raises ValueError where there is none."""
    starts = [(found.start(), found[1]) for found in _FUNCTION.finditer(text)]
    if not starts:
        raise ValueError(f"cuobjdump -sass: wanted a line 'Function : NAME'; got {text[:80]!r}")
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return [
        Function(
            name,
            tuple(
                Instruction(int(address, 16), predicate or "", opcode, operands.strip())
                for address, predicate, opcode, operands in _INSTRUCTION.findall(text, start, end)
            ),
        )
        for (start, name), end in zip(starts, ends, strict=True)
    ]


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
        ends = instruction.base in _BRANCHES or instruction.base in _ENDS
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


def multiply_adds(function: Function, loop: Loop, num_warps: int) -> int | None:
    """Multiply-adds that one pass of ``loop`` does on tensor cores, for the whole block of ``num_warps`` warps.

    mma.sync and wgmma carry their shape in the opcode; tcgen05 takes it from the instruction descriptor, a constant
    moved into a uniform register ahead of the start. None where a shape cannot be read.
    """
    total = 0
    for instruction in loop.instructions:
        path = tensor_path(instruction.base)
        if path == "mma.sync":
            shape = _mma_shape(instruction.opcode)
            if shape is None:
                return None
            total += shape * num_warps
        elif path == "wgmma":
            found = re.search(r"\.(\d+)x(\d+)x(\d+)", instruction.opcode)
            if found is None:
                return None
            # Four warps issue one wgmma together.
            total += int(found[1]) * int(found[2]) * int(found[3]) * num_warps // 4
        elif path == "tcgen05":
            shape = _tcgen05_shape(function, instruction)
            if shape is None:
                return None
            total += shape
    return total


def _mma_shape(opcode: str) -> int | None:
    """m·n·k of one warp's mma: HMMA.16816 is 16 × 8 × 16."""
    found = re.match(r"\w+\.(16)(8)(\d+)", opcode)
    return int(found[1]) * int(found[2]) * int(found[3]) if found else None


def _tcgen05_shape(function: Function, start: Instruction) -> int | None:
    """m·n·k of one tcgen05 multiply: M/16 and N/8 stand in bits 24-28 and 17-22 of the instruction descriptor.

    Source: PTX ISA 8.7, table "Instruction descriptor format"; k is 16 for 16-bit types and 8 for tf32.
    """
    register = re.search(r"idesc\[(UR\d+)\]", start.operands)
    if register is None:
        return None
    descriptor: int | None = None
    for instruction in function.instructions:
        if instruction.address >= start.address:
            break
        found = re.match(rf"{register[1]}, (0x[0-9a-f]+)$", instruction.operands)
        if instruction.base == "UMOV" and found:
            descriptor = int(found[1], 16)
    if descriptor is None:
        return None
    rows, columns = (descriptor >> 24 & 0x1F) * 16, (descriptor >> 17 & 0x3F) * 8
    return rows * columns * (16 if start.base == "UTCHMMA" else 32)
