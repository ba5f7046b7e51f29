"""Where compiled libraries are kept, and which of them may be loaded: whole, and nobody else's."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import platformdirs

from rls_kernels.ownership import refusal

# The library of every instruction set, its objects and what the compiler keeps meanwhile.
_ROOM_BYTES = 64 << 20
# A library that is torn, or emptied by a crash, would end the process that loads it; its seal is written after it.
_SEAL = ".sha256"


def folders() -> Iterator[Path]:
    """Folders to keep libraries in, best first: the user's cache, then private places that last less long."""
    yield from _lasting()
    yield _of_this_process()


def holds(folder: str, name: str) -> bool:
    """Whether a library that a process before this one kept is there whole."""
    return any(is_whole(place / folder / name) for place in _lasting())


def _lasting() -> Iterator[Path]:
    # Without HOME and an entry in passwd platformdirs raises, and in older versions the home is "~", literally.
    kept = None
    with suppress(RuntimeError):
        kept = Path(platformdirs.user_cache_dir("rls_kernels"))
    if kept is not None and kept.is_absolute():
        yield kept
    yield Path(tempfile.gettempdir()) / f"rls_kernels-{os.geteuid()}"


@cache
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="rls_kernels-"))


def prepare(folder: Path) -> None:
    """Make ``folder``. Raises OSError where that cannot be, PermissionError where it isn't this user's alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if reason := refusal(folder):
        raise PermissionError(reason)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")
    if shutil.disk_usage(folder).free < _ROOM_BYTES:
        raise OSError(f"{folder} has less than {_ROOM_BYTES >> 20} MiB left")


def is_whole(library: Path) -> bool:
    """Whether ``library`` is there as it was sealed, and nobody else's."""
    try:
        if refusal(library):
            return False
        size, digest = library.with_name(library.name + _SEAL).read_text().split()
        return library.stat().st_size == int(size) and _digest(library) == digest
    except (OSError, ValueError):
        return False


def keep(built: Path, library: Path) -> None:
    """Put ``built``, on the same file system, in the place of ``library``, and seal it: each whole or not at all."""
    # Whatever the umask, or it would be refused.
    built.chmod(0o700)
    seal = built.with_name(built.name + _SEAL)
    seal.write_text(f"{built.stat().st_size} {_digest(built)}\n")
    for written in (built, seal):
        with written.open("rb") as file:
            os.fsync(file.fileno())
    kept_seal = library.with_name(library.name + _SEAL)
    # A seal is never seen beside another library than its own.
    kept_seal.unlink(missing_ok=True)
    built.replace(library)
    seal.replace(kept_seal)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
