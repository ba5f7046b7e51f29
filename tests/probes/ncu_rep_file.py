"""Writes a small .ncu-rep file: enough of NVIDIA's format for ncu-report to read launches and their metrics.

The file is a magic word and a protocol-buffers header, then blocks; a block is its own header (how many results it
holds, the table of strings that name the metrics, the bytes that follow) and its results. Lengths are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

Launch = tuple[str, Mapping[str, float]]


def write(path: Path, launches: Sequence[Launch]) -> None:
    """Write ``launches``, each a kernel's name and its metrics."""
    names = sorted({name for _, metrics in launches for name in metrics})
    results = b"".join(_sized(_result(kernel, metrics, names)) for kernel, metrics in launches)
    strings = b"".join(_bytes(1, name.encode()) for name in names)
    block = _number(1, 0) + _number(2, len(launches)) + _bytes(4, strings) + _number(5, len(results))
    path.write_bytes(b"NVR\0" + _sized(_number(1, 7)) + _sized(block) + results)


def _result(kernel: str, metrics: Mapping[str, float], names: Sequence[str]) -> bytes:
    values = b"".join(
        _bytes(13, _number(1, names.index(name)) + _bytes(2, _double(3, value))) for name, value in metrics.items()
    )
    handles = b"".join(_number(field, 0) for field in (1, 2, 3, 4))
    kernel_names = b"".join(_bytes(field, kernel.encode()) for field in (5, 6, 7))
    shape = _number(1, 1) + _number(2, 1) + _number(3, 1)
    offset_grid_block = b"".join(_bytes(field, shape) for field in (9, 10, 11))
    source = _bytes(15, _number(1, 0) + _number(5, 8))
    return handles + kernel_names + _number(8, 3) + offset_grid_block + values + source


def _sized(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
