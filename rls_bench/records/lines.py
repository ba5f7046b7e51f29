"""Where records come from: a results file, a store or a part of one, or the folder of a fleet."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from rls_bench.errors import RecordError
from rls_bench.records.store import reading

# What a fleet concludes lies there.
VERDICT = "records.jsonl"


@contextmanager
def opened(path: Path, *, newest: bool = False) -> Iterator[Iterable[bytes]]:
    """The lines of ``path``: a file, a fleet's folder, a store, or ``STORE::CONDITION``.

    With ``newest`` a store leaves out what a newer commit of the same cell replaces. Raises RecordError where it
    cannot be read.
    """
    if where := reading.place(path):
        yield reading.lines(where, newest=newest)
        return
    file = path / VERDICT if (path / VERDICT).is_file() else path
    try:
        with file.open("rb") as lines:
            pass_mark(lines)
            yield lines
    except OSError as error:
        raise RecordError(f"results file {path}: cannot be read ({error.strerror})") from error


def pass_mark(file: BufferedReader) -> None:
    """Read past the mark that some editors put before UTF-8; a pipe can be read so, too."""
    if file.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
        file.read(len(BOM_UTF8))


def replaced(path: Path) -> list[str]:
    """The commits that ``newest`` leaves out of a store; none of anything else."""
    where = reading.place(path)
    return reading.older(where) if where else []
