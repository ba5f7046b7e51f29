"""Room to write: a full disk is the machine's fault, and no backend's."""

from __future__ import annotations

import errno
import os
import tempfile

from rls_bench.errors import RlsBenchError

# What workers print and a compiler's intermediate files take at the least.
_ROOM_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def check() -> None:
    """Raise RlsBenchError where the temporary folder, which every worker needs, takes no megabyte."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_ROOM_BYTES))
            file.flush()
    except OSError as error:
        raise RlsBenchError(
            f"the temporary folder {_folder()}: wanted room for {_ROOM_BYTES >> 20} MiB; got {error.strerror!r}; free "
            "some, or have TMPDIR name another"
        ) from error


def lacking(error: BaseException) -> str | None:
    """The file or folder that was full where that is what ``error`` comes of, whoever wrapped it; else None."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        if isinstance(inner, OSError) and inner.errno in _FULL:
            return os.fsdecode(inner.filename) if isinstance(inner.filename, (str, bytes)) else _folder()
        # A compiler is another process, and says it in words.
        if os.strerror(errno.ENOSPC) in str(inner):
            return _folder()
        seen.add(id(inner))
        inner = inner.__cause__ or inner.__context__
    return None


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    # None of all that are tried can be written.
    except OSError:
        return os.environ.get("TMPDIR", "/tmp")
