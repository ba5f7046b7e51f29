"""Memory that one process fills and others can only read, and trays in which they hand something back.

On Linux both are memory files: a sealed one can be written by nobody any more, its maker included. Elsewhere they are
unlinked temporary files, and what stands for a seal is that readers get a descriptor that is open for reading alone.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterable


def seal(chunks: Iterable[memoryview | bytes]) -> int:
    """A descriptor of memory that holds ``chunks`` one after another, for good."""
    if not hasattr(os, "memfd_create"):
        return _read_only_file(chunks)
    descriptor = os.memfd_create("inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(descriptor, chunks)
        fcntl.fcntl(
            descriptor,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def tray() -> int:
    """A descriptor of empty memory that its holders may write."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("results", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def reading(descriptor: int) -> mmap.mmap:
    """The memory behind ``descriptor``, for reading; raises ValueError where there is none."""
    return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)


def writing(descriptor: int, size: int) -> mmap.mmap:
    """The first ``size`` bytes behind ``descriptor``, which grows to them, for writing."""
    if os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)
    return mmap.mmap(descriptor, size)


def _read_only_file(chunks: Iterable[memoryview | bytes]) -> int:
    with tempfile.NamedTemporaryFile() as file:
        _write(file.fileno(), chunks)
        return os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)


def _write(descriptor: int, chunks: Iterable[memoryview | bytes]) -> None:
    for chunk in chunks:
        left = memoryview(chunk).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]
