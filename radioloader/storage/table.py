"""Append-only tables.

A table is a sparse TileDB array with one uint64 dimension ``row`` (unique: commit id and counter) and the system columns
``commit`` and ``deleted``. Rows are never changed: a newer row with the same id replaces an older one, a row with ``deleted``
set is a tombstone. Which rows count is decided by the reader, from the list of commits that it goes by.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig
from radioloader.errors import CatalogError, ReadError, StoreWriteError
from radioloader.storage._fork import gate
from radioloader.storage.context import as_default, context_for

__all__ = ["COUNTER_BITS", "Column", "Commits", "Table", "newest", "one_of"]

COUNTER_BITS = 24
"""Rows are numbered ``commit << COUNTER_BITS | counter``."""

CONSOLIDATE_AT = 50
"""Fragments after which a table is consolidated: opening and reading 300 of them takes 14 times as long as one."""

_DTYPES: dict[str, Any] = {
    "str": np.dtype("U"),
    "bytes": np.dtype("S"),
    "int": np.dtype(np.int64),
    "uint": np.dtype(np.uint64),
    "float": np.dtype(np.float64),
    "bool": np.dtype(np.bool_),
    "datetime": np.dtype("datetime64[ns]"),
}
_ROW_MAX = 2**64 - 2**20
_RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its kind (``str``, ``bytes``, ``int``, ``float``, ``bool``, ``datetime``), whether values may be missing."""

    name: str
    kind: str
    nullable: bool = False

    def attribute(self, ctx: tiledb.Ctx) -> tiledb.Attr:
        """The TileDB attribute of this column."""
        return tiledb.Attr(
            name=self.name,
            dtype=_DTYPES[self.kind],
            var=self.kind in ("str", "bytes"),
            nullable=self.nullable,
            filters=_filters(ctx),
            ctx=ctx,
        )


def _filters(ctx: tiledb.Ctx) -> tiledb.FilterList:
    # SHA-256 over table tiles is cheap (tables are small), and a flipped bit in them would misplace whole volumes.
    return tiledb.FilterList([tiledb.ZstdFilter(level=3, ctx=ctx), tiledb.ChecksumSHA256Filter(ctx=ctx)], ctx=ctx)


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits that a reader goes by.

    Attributes:
        ids: Commit ids, ascending.
        versions: Version of each of ``ids``.
        times: When each was made, in ms since 1970 (UTC).
    """

    ids: npt.NDArray[np.uint64]
    versions: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]

    @property
    def version(self) -> int:
        """The newest version; 0 when there is none."""
        return int(self.versions.max()) if self.versions.size else 0

    def until(self, version: int) -> Commits:
        """Those up to a version."""
        kept = self.versions <= version
        return Commits(self.ids[kept], self.versions[kept], self.times[kept])

    def locate(self, commit: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """For each row's ``commit``: whether it is one of these, and its version."""
        if not self.ids.size:
            return np.zeros(commit.shape, np.bool_), np.zeros(commit.shape, np.int64)
        place = np.minimum(np.searchsorted(self.ids, commit), self.ids.size - 1)
        return self.ids[place] == commit, self.versions[place]


class Table:
    """One append-only table.

    Args:
        uri: Where it lies.
        config: Access settings.
    """

    def __init__(self, uri: str, config: StorageConfig) -> None:
        self.uri = uri
        self._config = config

    @property
    def _ctx(self) -> tiledb.Ctx:
        return context_for(self.uri, self._config)

    def create(self, columns: Sequence[Column]) -> None:
        """Make the table with the system columns and ``columns``."""
        ctx = self._ctx
        dimension = tiledb.Dim(
            name="row", domain=(0, _ROW_MAX), tile=2**16, dtype=np.uint64, filters=_filters(ctx), ctx=ctx
        )
        system = [Column("commit", "uint"), Column("deleted", "bool")]
        with as_default(ctx):
            schema = tiledb.ArraySchema(
                domain=tiledb.Domain(dimension, ctx=ctx),
                attrs=[column.attribute(ctx) for column in [*system, *columns]],
                sparse=True,
                allows_duplicates=True,
                offsets_filters=_filters(ctx),
                validity_filters=_filters(ctx),
                ctx=ctx,
            )
        try:
            tiledb.Array.create(self.uri, schema, ctx=ctx)
        except tiledb.TileDBError as error:
            raise StoreWriteError(f"could not create the table {self.uri}: {error}") from error

    def columns(self) -> dict[str, Column]:
        """The columns besides ``row``, ``commit`` and ``deleted``, by name."""
        try:
            schema = tiledb.ArraySchema.load(self.uri, ctx=self._ctx)
        except tiledb.TileDBError as error:
            raise ReadError(f"could not read the table {self.uri}: {error}") from error
        return _columns_of(schema)

    def add_columns(self, columns: Sequence[Column]) -> None:
        """Add columns that are not there yet; older rows have them missing.

        Raises:
            CatalogError: A column of that name exists with another kind.
        """
        existing = self.columns()
        new = []
        for column in columns:
            old = existing.get(column.name)
            if old is None:
                new.append(column)
            elif old.kind != column.kind:
                raise CatalogError(
                    f"column {column.name!r} holds {old.kind} values in the store, but the new values are {column.kind}; "
                    f"convert them to {old.kind} or use another column name"
                )
        if new:
            ctx = self._ctx
            evolution = tiledb.ArraySchemaEvolution(ctx)
            for column in new:
                evolution.add_attribute(column.attribute(ctx))
            try:
                evolution.array_evolve(self.uri)
            except tiledb.TileDBError as error:
                raise StoreWriteError(f"could not add columns to the table {self.uri}: {error}") from error

    def append(self, commit: int, rows: Mapping[str, Sequence[Any]], *, counter: int = 0) -> int:
        """Append rows; they exist once ``commit`` is committed.

        Args:
            commit: Id of the commit that writes them.
            rows: Values by column, all of one length; None where a value is missing. ``deleted`` may be left out. Columns
                of the table that are not named are missing in these rows.
            counter: Rows that this commit appended to this table before.

        Returns:
            The counter for the next call.
        """
        count = len(next(iter(rows.values())))
        if not count:
            return counter
        ctx = self._ctx
        try:
            with tiledb.open(self.uri, "w", ctx=ctx) as array:
                values: dict[str, Any] = {
                    "commit": np.full(count, commit, np.uint64),
                    "deleted": np.asarray(rows.get("deleted", np.zeros(count)), np.bool_),
                }
                for column in _columns_of(array.schema).values():
                    values[column.name] = _encode(column, rows.get(column.name), count)
                unknown = set(rows) - set(values)
                if unknown:
                    raise CatalogError(f"table {self.uri} has no columns {sorted(unknown)}")
                index = np.arange(count, dtype=np.uint64) + np.uint64((commit << COUNTER_BITS) + counter)
                array[index] = values
        except tiledb.TileDBError as error:
            raise StoreWriteError(f"could not write to the table {self.uri}: {error}") from error
        return counter + count

    def read(
        self, names: Sequence[str] | None = None, *, rows: tuple[int, int] | None = None, where: str | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """All rows as they lie there, committed or not, with ``row``, ``commit`` and ``deleted``.

        Args:
            names: Columns to read; None reads all.
            rows: First and last row number; None reads all.
            where: Only rows that fulfil this condition, in TileDB's own words (``tiledb.QueryCondition``).

        Raises:
            ReadError: The table is missing, damaged or out of reach.
        """
        return self._read(names, ["commit", "deleted"], rows, where)

    def rows_where(self, where: str) -> npt.NDArray[np.uint64]:
        """Numbers of the rows, committed or not, that fulfil a condition in TileDB's own words.

        Raises:
            ReadError: The table is missing, damaged or out of reach.
        """
        return self._read([], [], None, where)["row"]

    def _read(
        self, names: Sequence[str] | None, system: list[str], rows: tuple[int, int] | None, where: str | None
    ) -> dict[str, npt.NDArray[Any]]:
        started = time.monotonic()
        for attempt in range(5):
            try:
                with gate, tiledb.open(self.uri, "r", ctx=self._ctx) as array:
                    if names is None:
                        names = list(_columns_of(array.schema))
                    # Not ``query``: that makes TileDB's default context besides ours, one for each thread.
                    which = slice(None) if rows is None else slice(rows[0], rows[1] + 1)
                    result = array.subarray(which, attrs=[*system, *names], cond=where)
                    return {name: _decode(values) for name, values in result.items()}
            except tiledb.TileDBError as error:
                # A writer may have consolidated the table between our listing and our reading of its fragments. A server that
                # does not answer has been asked again by TileDB, for much longer than that takes.
                if attempt == 4 or time.monotonic() - started > _RETRY_S:
                    raise ReadError(f"could not read the table {self.uri}: {error}") from error
        raise AssertionError("unreachable")

    def consolidate(self, *, force: bool = False) -> None:
        """Merge the table's fragments when there are many; only for the process that holds the writer's lock."""
        ctx = self._ctx
        try:
            if not force and len(tiledb.array_fragments(self.uri, ctx=ctx)) <= CONSOLIDATE_AT:
                return
            # The default buffers (of gigabytes, for every column) take seconds to be faulted in.
            settings = tiledb.Config({**ctx.config().dict(), "sm.consolidation.buffer_size": str(4 * 2**20)})
            tiledb.consolidate(self.uri, ctx=ctx, config=settings)
            tiledb.vacuum(self.uri, ctx=ctx)
        except tiledb.TileDBError as error:
            raise StoreWriteError(f"could not consolidate the table {self.uri}: {error}") from error


def one_of(column: str, values: Iterable[str]) -> str:
    """The condition, for :meth:`Table.read`, that a column has one of some values, of which there is at least one."""
    return f"attr({column!r}) in {sorted(values)!r}"


def newest(rows: Mapping[str, npt.NDArray[Any]], commits: Commits, *keys: str) -> dict[str, npt.NDArray[Any]]:
    """The newest committed row for each id, without tombstones, sorted by id.

    Args:
        rows: What :meth:`Table.read` gave.
        commits: The commits to go by.
        keys: Columns that make up the id.
    """
    known, version = commits.locate(rows["commit"])
    kept = np.flatnonzero(known)
    # Rows of one commit are ordered by their counter.
    kept = kept[np.lexsort((rows["row"][kept], version[kept]))]
    columns = [rows[name][kept].tolist() for name in keys]
    # A later one of a key takes the place of an earlier one.
    latest: dict[Any, int] = dict(
        zip(columns[0] if len(columns) == 1 else zip(*columns, strict=True), kept.tolist(), strict=True)
    )
    deleted = rows["deleted"]
    chosen = np.array([latest[key] for key in sorted(latest) if not deleted[latest[key]]], dtype=np.int64)
    return {name: values[chosen] for name, values in rows.items()}


def _columns_of(schema: tiledb.ArraySchema) -> dict[str, Column]:
    columns = {}
    for position in range(schema.nattr):
        attribute = schema.attr(position)
        if attribute.name not in ("commit", "deleted"):
            columns[attribute.name] = Column(attribute.name, _kind(attribute), attribute.isnullable)
    return columns


def _kind(attribute: tiledb.Attr) -> str:
    letter = np.dtype(attribute.dtype).kind
    return {"U": "str", "O": "str", "S": "bytes", "i": "int", "u": "uint", "f": "float", "b": "bool", "M": "datetime"}[
        letter
    ]


def _encode(column: Column, values: Sequence[Any] | None, count: int) -> npt.NDArray[Any]:
    if column.kind == "float":
        return (
            np.full(count, np.nan)
            if values is None
            else np.array([np.nan if v is None else v for v in values], np.float64)
        )
    if column.kind == "datetime":
        missing = np.datetime64("NaT", "ns")
        return np.array([missing if v is None else v for v in values or [None] * count], "datetime64[ns]")
    if values is None:
        values = [None] * count
    if not column.nullable and any(v is None for v in values):
        raise CatalogError(f"column {column.name!r} must have a value in every row")
    if column.kind == "bytes" and column.nullable and any(v is not None and v.endswith(b"\0") for v in values):
        # Measured (tiledb-py 0.36): what may be missing is read back without the NULs at its end.
        raise CatalogError(f"column {column.name!r} cannot hold bytes that end in NUL")
    if column.kind in ("str", "bytes"):
        result = np.empty(count, dtype=object)
        result[:] = list(values)
        return result
    if column.nullable:
        return np.array([None if v is None else _DTYPES[column.kind].type(v) for v in values], dtype=object)
    return np.asarray(values, dtype=_DTYPES[column.kind])


def _decode(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        if values.dtype == object or np.ma.getmaskarray(values).any():
            result = values.data.astype(object)
            result[np.ma.getmaskarray(values)] = None
            return result
        return values.data
    return values
