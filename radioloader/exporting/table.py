"""Tables of subjects: ``participants.tsv``, typed so that an ingest gives the same columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radioloader.errors import CatalogError
from radioloader.exporting.selection import Selection
from radioloader.ingestion.metadata import load_metadata, read_table
from radioloader.storage.snapshot import USER_PREFIX

__all__ = ["PARTICIPANTS", "Table", "participants", "source_column"]

PARTICIPANTS = "participants.tsv"
_MISSING = "n/a"
_KINDS = {"int": "whole numbers", "float": "numbers", "bool": "true or false", "datetime": "dates", "str": "text"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        path: Relative to the folder.
        key: Name of the first column.
        columns: Kind of each further column.
        rows: Values by name of the row, then column; None where one is missing.
    """

    path: str
    key: str
    columns: Mapping[str, str]
    rows: Mapping[str, dict[str, Any]]

    def text(self) -> str:
        """The file."""
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow([self.key, *self.columns])
        for name, values in self.rows.items():
            writer.writerow([name, *(_cell(values.get(column)) for column in self.columns)])
        return stream.getvalue()

    def differences(self, path: Path) -> list[str]:
        """What an ingest of the written file would understand otherwise, as notes."""
        if not self.columns or not self.rows:
            return []
        try:
            metadata, _ = load_metadata(read_table(path), {}, list(self.rows))
        except CatalogError as error:
            return [f"{self.path} cannot be ingested as it is: {error}"]
        notes = []
        kinds = {column.name.removeprefix(USER_PREFIX): column.kind for column in metadata.columns}
        for name, kind in self.columns.items():
            if kinds.get(name, kind) != kind:
                notes.append(
                    f"{self.path}: the column {name!r} holds {_KINDS[kind]} that read as {_KINDS[kinds[name]]} in a file"
                )
                continue
            read = {row: metadata.rows.get(row, {}).get(f"{USER_PREFIX}{name}") for row in self.rows}
            other = [row for row, values in self.rows.items() if not _same(read[row], values.get(name))]
            if other:
                value = self.rows[other[0]].get(name)
                notes.append(
                    f"{self.path}: {len(other)} values of the column {name!r}, such as {value!r} of {other[0]!r}, read as another one "
                    "in a file"
                )
        return notes


def _same(one: Any, other: Any) -> bool:
    # The text n/a is a value, and what is missing is none.
    return (one is None) == (other is None) and _cell(one) == _cell(other)


def _cell(value: Any) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "to_datetime64"):
        value = value.to_datetime64()
    if isinstance(value, np.datetime64):
        date, _, time = str(np.datetime_as_string(value.astype("datetime64[ns]"), unit="ns")).partition("T")
        whole, _, fraction = time.partition(".")
        fraction = fraction.rstrip("0")
        if whole == "00:00:00" and not fraction:
            return date
        return f"{date}T{whole}" + (f".{fraction}" if fraction else "")
    return repr(value) if isinstance(value, float) else str(value)


def source_column(selection: Selection) -> str:
    """Name of the column of the ids in the store, which no column of the subjects has."""
    taken = set(selection.snapshot.metadata_columns)
    return next(name for name in ("source_id", *(f"source_id_{n}" for n in range(2, 10**6))) if name not in taken)


def participants(
    selection: Selection,
    names: Mapping[str, str],
    *,
    key: str,
    renamed: Mapping[str, str],
    without: Sequence[str] = (),
) -> Table:
    """The table of the subjects' columns.

    Args:
        selection: What is exported.
        names: Names of the rows by subject, in their order.
        key: Name of the first column.
        renamed: Names by id, of subjects that have another one in the folder; when there are any, a column says their ids.
        without: Columns to leave out.
    """
    columns = {name: kind for name, kind in selection.metadata_kinds().items() if name not in without}
    rows: dict[str, dict[str, Any]] = {
        name: {column: selection.value(subject, column) for column in columns} for subject, name in names.items()
    }
    if renamed:
        source = source_column(selection)
        columns = {source: "str", **columns}
        for subject, name in names.items():
            rows[name][source] = subject
    return Table(PARTICIPANTS, key, columns, rows)
