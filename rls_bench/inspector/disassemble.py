"""Reads compiled kernels back with the tools that Triton's wheel ships: what they take of an SM, and their code.

cuobjdump would print the code, too, through nvdisasm, which takes 0.3 to 0.5 s of CPU time to start and milliseconds a
kernel. So nvdisasm is started once for all kernels of an architecture, with their code sections one behind the other.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence

from rls_bench.errors import InspectionError
from rls_bench.inspector import sass
from rls_bench.inspector.compile import capability, tool

# Offsets in an ELF64 header and the layout of one section header, as elf(5) has them.
_SECTION_TABLE_OFFSET, _SECTION_COUNTS_OFFSET = 0x28, 0x3A
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack, a thread. Raises InspectionError where cuobjdump doesn't tell them."""
    text = _run(tool("cuobjdump"), "-res-usage", content=cubin)
    found = [re.search(rf"\b{name}:(\d+)", text) for name in ("REG", "STACK")]
    if None in found:
        raise InspectionError(f"cuobjdump -res-usage: wanted REG:N and STACK:N; got {text[:200]!r}")
    registers, stack = (int(one[1]) for one in found if one)
    return registers, stack


def code(cubin: bytes) -> bytes:
    """The instructions of the kernel in ``cubin``, a 64-bit ELF. Raises InspectionError where it holds none.

    Helper functions may have sections of their own; the kernel is the one with the most code.
    """
    try:
        found = [content for name, content in _sections(cubin) if name.startswith(".text.")]
    except (struct.error, ValueError, IndexError) as error:
        raise InspectionError(f"wanted a cubin in ELF format; got {len(cubin)} bytes {cubin[:4]!r}") from error
    if not found:
        raise InspectionError("wanted a cubin with a section .text.KERNEL; got none")
    return max(found, key=len)


def functions(arch: str, codes: Sequence[bytes]) -> list[sass.Function]:
    """The instructions of each of ``codes`` on ``arch`` (``"sm_90"``), in their order."""
    number = capability(arch)
    # Triton compiles for the architecture-specific set (sm_90a) from Hopper on.
    name = f"SM{number}a" if number >= 90 else f"SM{number}"
    listing = _run(tool("nvdisasm"), "--no-dataflow", "--binary", name, content=b"".join(codes))
    return sass.cut(sass.parse(listing), [len(each) for each in codes])


def _sections(elf: bytes) -> list[tuple[str, bytes]]:
    (table,) = struct.unpack_from("<Q", elf, _SECTION_TABLE_OFFSET)
    size, count, names_index = struct.unpack_from("<HHH", elf, _SECTION_COUNTS_OFFSET)
    headers = [_SECTION_HEADER.unpack_from(elf, table + size * index) for index in range(count)]
    names = headers[names_index][4]
    found = []
    for name, _, _, _, offset, length, *_ in headers:
        start = names + name
        found.append((elf[start : elf.index(b"\0", start)].decode(), elf[offset : offset + length]))
    return found


def _run(path: str, *flags: str, content: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(content)
        file.flush()
        process = subprocess.run([path, *flags, file.name], capture_output=True, text=True, check=False)
    if process.returncode:
        raise InspectionError(f"{path} failed: {process.stderr.strip() or process.returncode}")
    return process.stdout
