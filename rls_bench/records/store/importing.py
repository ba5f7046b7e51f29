"""Takes results files into a store. A line that is there already, from whichever file, is no more evidence."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rls_bench.errors import RecordError
from rls_bench.records.record import UNREADABLE, Skipped
from rls_bench.records.store import columns, packages, reading

# Rows wait for each other until so many bytes of lines have come together: large groups compress and are read best.
_BUFFER_BYTES = 64 << 20
_ROWS_A_TABLE = 5_000


@dataclass
class Imported:
    """How many records were taken in, how many were there already, and the lines that could not be read."""

    added: int = 0
    known: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def take_in(folder: Path, files: Iterable[Path], progress: Callable[[int], None] = lambda count: None) -> Imported:
    """Add the records of ``files`` to the store in ``folder``, which is made where there is none.

    ``progress`` is told how many lines were read. Raises RecordError where a file cannot be read or the store not be
    written; what was in the store before stays as it was.
    """
    done, count = Imported(), 0
    known = reading.digests(folder)
    reader = columns.Reader()
    writer = _Writer(folder, reader)
    try:
        for path in files:
            try:
                file = path.open("rb")
            except OSError as error:
                raise RecordError(f"results file {path}: cannot be read ({error.strerror})") from error
            with file:
                for number, raw in enumerate(file, start=1):
                    line = raw.strip()
                    if not line:
                        continue
                    count += 1
                    if count % _ROWS_A_TABLE == 0:
                        progress(count)
                    mark = columns.digest(line)
                    if mark in known:
                        done.known += 1
                        continue
                    try:
                        row = reader.row(line, mark)
                    except UNREADABLE as error:
                        done.skipped.append(Skipped(path, number, str(error)))
                        continue
                    known.add(mark)
                    writer.add(row)
                    done.added += 1
        writer.finish()
    finally:
        writer.discard()
    return done


class _Writer:
    """One new file for each machine and month, seen by readers only once all are whole."""

    def __init__(self, folder: Path, reader: columns.Reader) -> None:
        self._reader = reader
        self._arrow = packages.arrow()
        self._schema = columns.schema(self._arrow)
        self._folder = folder
        # By the time of the import, so that later files are read later.
        self._name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}.parquet"
        self._rows: dict[tuple[str, str], list[columns.Row]] = {}
        self._tables: dict[tuple[str, str], list[Any]] = {}
        self._writers: dict[tuple[str, str], Any] = {}
        self._bytes = 0

    def add(self, row: columns.Row) -> None:
        rows = self._rows.setdefault(row.place, [])
        rows.append(row)
        self._bytes += len(row.line)
        if len(rows) >= _ROWS_A_TABLE:
            self._to_table(row.place)
        if self._bytes >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what waits, and show it to readers."""
        self._flush()
        try:
            for place, writer in self._writers.items():
                writer.close()
                self._part(place).replace(self._path(place))
        except OSError as error:
            raise self._error(error) from error
        self._writers.clear()

    def discard(self) -> None:
        """Take away what was not finished."""
        for place, writer in self._writers.items():
            writer.close()
            self._part(place).unlink(missing_ok=True)

    def _to_table(self, place: tuple[str, str]) -> None:
        """Columns take a fraction of what decoded records do."""
        if rows := self._rows.pop(place, []):
            self._tables.setdefault(place, []).append(self._reader.table(self._arrow, rows))

    def _flush(self) -> None:
        for place in [*self._rows]:
            self._to_table(place)
        try:
            for place, tables in self._tables.items():
                # The line column holds what no dictionary helps with.
                whole = self._arrow.concat_tables(tables).unify_dictionaries()
                self._writer(place).write_table(whole, row_group_size=len(whole))
        except OSError as error:
            raise self._error(error) from error
        self._tables.clear()
        self._bytes = 0

    def _writer(self, place: tuple[str, str]) -> Any:
        if place not in self._writers:
            part = self._part(place)
            part.parent.mkdir(parents=True, exist_ok=True)
            words = [each.name for each in self._schema if self._arrow.types.is_dictionary(each.type)]
            self._writers[place] = self._arrow.parquet.ParquetWriter(
                part, self._schema, compression="zstd", compression_level=1, use_dictionary=words
            )
        return self._writers[place]

    def _path(self, place: tuple[str, str]) -> Path:
        machine, month = place
        return self._folder / f"machine={machine}" / f"month={month}" / self._name

    def _part(self, place: tuple[str, str]) -> Path:
        return self._path(place).with_suffix(".part")

    def _error(self, error: OSError) -> RecordError:
        return RecordError(f"store {self._folder}: cannot be written ({error.strerror}); earlier records are intact")
