"""How many multiply-adds a loop's tensor-core instructions do, read from their opcodes and descriptors."""

from __future__ import annotations

import re

from rls_bench.inspector.loops import Loop
from rls_bench.inspector.sass import Function, Instruction, tensor_path


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
