"""Reads nvdisasm's listing: instructions, and which pipe each one occupies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
_TARGET = re.compile(r"(?:^|[ ,])(0x[0-9a-f]+)$")
BRANCHES = frozenset({"BRA", "CALL", "JMP", "BRX", "JMX"})
# Instructions whose last operand is an address in the code.
_HOLD_ADDRESSES = BRANCHES | {"BSSY", "RET"}
ENDS = frozenset({"EXIT", "RET", "BRX", "JMX", "KILL"})


class Instruction(NamedTuple):
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
        if self.base not in BRANCHES:
            return None
        found = _TARGET.search(self.operands)
        return int(found[1], 16) if found else None

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction can follow."""
        if self.predicate:
            return True
        if self.base in ENDS:
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

    instructions: tuple[Instruction, ...]

    @property
    def path(self) -> str:
        """Tensor-core path of the whole function; ``none`` where it has no tensor instruction."""
        found = {tensor_path(base) for base in {instruction.base for instruction in self.instructions}} - {""}
        return " + ".join(sorted(found)) or "none"

    @property
    def spill_bytes(self) -> int:
        """Bytes of all spill stores (``STL``), a thread; what ptxas reports as "bytes spill stores"."""
        return sum(_stored_bytes(one.opcode) for one in self.instructions if one.base == "STL")


def _stored_bytes(opcode: str) -> int:
    widths = {"64": 8, "128": 16, "U8": 1, "S8": 1, "U16": 2, "S16": 2}
    return next((widths[modifier] for modifier in opcode.split(".")[1:] if modifier in widths), 4)


def parse(text: str) -> tuple[Instruction, ...]:
    """The instructions of one listing, in its order. Raises ValueError where there is none."""
    found = tuple(
        Instruction(int(address, 16), predicate, opcode, operands.rstrip())
        for address, predicate, opcode, operands in _INSTRUCTION.findall(text)
    )
    if not found:
        raise ValueError(f"wanted a listing of nvdisasm's, /*0000*/ OPCODE OPERANDS; got {text[:80]!r}")
    return found


def cut(instructions: Sequence[Instruction], sizes: Sequence[int]) -> list[Function]:
    """Functions of ``sizes`` bytes that were listed one behind the other, each with addresses from 0."""
    found, start, at = [], 0, 0
    for size in sizes:
        own = []
        while at < len(instructions) and instructions[at].address < start + size:
            own.append(_moved(instructions[at], start))
            at += 1
        found.append(Function(tuple(own)))
        start += size
    return found


def _moved(instruction: Instruction, start: int) -> Instruction:
    """``instruction`` of a function that lay at ``start``, as if it lay at 0."""
    operands = instruction.operands
    if instruction.base in _HOLD_ADDRESSES and (target := _TARGET.search(operands)):
        operands = f"{operands[: target.start(1)]}{int(target[1], 16) - start:#x}"
    return instruction._replace(address=instruction.address - start, operands=operands)
