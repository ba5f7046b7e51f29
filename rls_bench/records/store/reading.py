"""Reads a store: lines as they came in, or whatever a query asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rls_bench.errors import RecordError
from rls_bench.records.store import packages

# Between a store's folder and which of its records are meant: ``results/store::commit = 'abc'``.
MARK = "::"
# By these folders are named; what a file's path says is in no row.
_PARTITIONS = ("machine", "month")
_FILES = "machine=*/month=*/*.parquet"
_ROWS = 2048
# What a query may use before it goes on in files.
_MEMORY = "400MB"


class Place(NamedTuple):
    """A store, and the condition of its rows that count; empty for all."""

    folder: Path
    condition: str


class Answer(NamedTuple):
    """What a query found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def place(path: Path) -> Place | None:
    """What ``path`` names, if that is a store or a part of one."""
    folder, mark, condition = str(path).partition(MARK)
    if mark or is_store(path):
        return Place(Path(folder), condition)
    return None


def is_store(folder: Path) -> bool:
    """Whether ``folder`` holds a store."""
    return folder.is_dir() and next(folder.glob(_FILES), None) is not None


def lines(where: Place, *, newest: bool = False) -> Iterator[bytes]:
    """The lines of the records that count; with ``newest`` only those of each cell's newest commit.

    Raises RecordError where there is no store, or the condition is none.
    """
    if newest:
        chosen = "select line from rows semi join newest using (machine, work, backend, commit) order by created"
        return _column(where, f"with {_NEWEST} {chosen}")
    return _column(where, "select line from rows")


def older(where: Place) -> list[str]:
    """Commits of cells that have been measured at a newer one."""
    query = f"with {_NEWEST} select distinct commit from rows anti join newest using (machine, work, backend, commit)"
    return [*_column(where, query)]


def query(folder: Path, sql: str) -> Answer:
    """What ``sql`` finds in the view ``records``, all columns but the lines, or in ``rows``, which has those, too."""
    with _Connection(Place(folder, "")) as connection:
        found = connection.run(sql)
        names = [column[0] for column in found.description or []]
        return Answer(names, found.fetchall())


def digests(folder: Path) -> set[int]:
    """What is in the store already."""
    if not is_store(folder):
        return set()
    return set(_column(Place(folder, ""), "select digest from rows"))


_NEWEST = (
    "newest as (select machine, work, backend, arg_max(commit, created) as commit from rows "
    "group by machine, work, backend)"
)


def _column(where: Place, sql: str) -> Iterator[Any]:
    with _Connection(where) as connection:
        found = connection.run(sql)
        while rows := found.fetchmany(_ROWS):
            for (value,) in rows:
                yield value


class _Connection:
    """DuckDB with the views ``rows`` and ``records`` of one store."""

    def __init__(self, where: Place) -> None:
        self._where = where
        self._duckdb = packages.duckdb()

    def __enter__(self) -> _Connection:
        folder, condition = self._where
        if not is_store(folder):
            raise RecordError(f"store {folder}: wanted a folder that rls-bench store import made; got none")
        self._connection = self._duckdb.connect(config={"memory_limit": _MEMORY})
        files = str(folder / _FILES).replace("'", "''")
        partitions = ", ".join(f"'{name}': varchar" for name in _PARTITIONS)
        source = f"read_parquet('{files}', hive_partitioning = true, hive_types = {{{partitions}}})"
        meant = f" where ({condition})" if condition else ""
        try:
            self.run(f"create view rows as select * from {source}{meant}")
            self.run("create view records as select * exclude (line, digest) from rows")
        except RecordError:
            self._connection.close()
            raise
        return self

    def __exit__(self, *ended: object) -> None:
        self._connection.close()

    def run(self, sql: str) -> Any:
        """The result of ``sql``. Raises RecordError."""
        try:
            return self._connection.execute(sql)
        except self._duckdb.Error as error:
            raise RecordError(f"store {self._where.folder}: {error}") from error
