"""Subjects' own columns: from a DataFrame, a CSV or a TSV to typed rows of ``obs_meta``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radioloader.errors import CatalogError
from radioloader.storage.snapshot import USER_PREFIX
from radioloader.storage.table import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUBJECT_COLUMNS", "Metadata", "MetadataTable", "load_metadata", "read_table"]

SUBJECT_COLUMNS = ("obs_subject_id", "participant_id", "subject_id", "subject")


@dataclass(slots=True)
class Metadata:
    """Typed rows.

    Attributes:
        columns: The users' columns, under their names on disk.
        rows: Values by subject, then by name on disk.
    """

    columns: list[Column]
    rows: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class MetadataTable:
    """A user's table as it was given.

    Attributes:
        name: The file, or ``"obs_meta"`` for a DataFrame; for messages.
        key: The column of subject ids.
        ids: Subject id of each row, unique.
        frame: All columns.
        typed: Whether the columns' dtypes were chosen by the user, not guessed from a file.
    """

    name: str
    key: str
    ids: list[str]
    frame: pd.DataFrame
    typed: bool


def read_table(source: pd.DataFrame | str | os.PathLike[str]) -> MetadataTable:
    """Read the table of subjects.

    Args:
        source: A DataFrame, or the path of a .csv or .tsv file (``n/a`` and empty cells are missing). One column holds the subject's
            id: ``obs_subject_id``, ``participant_id`` (BIDS), ``subject_id`` or ``subject``.

    Raises:
        CatalogError: It cannot be read, has no id column, or an id or a column twice.
    """
    frame, name = _read(source)
    key = next((column for column in SUBJECT_COLUMNS if column in frame.columns), None)
    if key is None:
        raise CatalogError(
            f"{name}: no column holds the subject id; expected one of {', '.join(SUBJECT_COLUMNS)}, got {list(frame.columns)}"
        )
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise CatalogError(f"{name}: the column {repeated[0]!r} occurs more than once; rename one")
    empty = np.flatnonzero(frame[key].isna())
    if empty.size:
        raise CatalogError(
            f"{name}: {empty.size} rows have no {key}, the first is row {empty[0] + 1}; fill it in, or remove the row"
        )
    ids = [str(value) for value in frame[key]]
    twice = sorted(subject for subject, count in Counter(ids).items() if count > 1)
    if twice:
        raise CatalogError(f"{name}: {key} is not unique, such as {twice[:3]}; keep one row for each subject")
    return MetadataTable(name, key, ids, frame, typed=not isinstance(source, str | os.PathLike))


def load_metadata(
    table: MetadataTable, existing: Mapping[str, Column], subjects: Sequence[str]
) -> tuple[Metadata, list[str]]:
    """Type a table's columns and take the rows of the subjects that are being ingested.

    Args:
        table: What :func:`read_table` gave.
        existing: The users' columns that the store has; values are converted to their kinds.
        subjects: Ids that are being ingested.

    Returns:
        The rows of ``subjects``, and notes.

    Raises:
        CatalogError: A column does not fit the store's.
    """
    name, key, ids, frame = table.name, table.key, table.ids, table.frame
    wanted = set(subjects)
    if not wanted & set(ids) and wanted & {f"sub-{subject}" for subject in ids}:
        ids = [f"sub-{subject}" for subject in ids]  # BIDS allows the bare label in participants.tsv
    kept = [place for place, subject in enumerate(ids) if subject in wanted]
    metadata = Metadata([], {ids[place]: {} for place in kept})
    for column in frame.columns:
        if column == key:
            continue
        on_disk = f"{USER_PREFIX}{column}"
        series = frame[column]
        old = existing.get(on_disk)
        if old is None and not series.iloc[kept].notna().any():
            continue  # no value to go by: a column appears, with the kind it then has, when it first has one
        kind = _kind(series, typed=table.typed) if old is None else old.kind
        metadata.columns.append(Column(on_disk, kind, nullable=kind in ("str", "int", "bool")))
        for place, value in zip(kept, _values(series.iloc[kept], kind, f"{name}, column {column!r}"), strict=True):
            metadata.rows[ids[place]][on_disk] = value
    if not kept and wanted:
        raise CatalogError(
            f"{name}: none of its {len(ids)} rows is of a subject here; its {key} are like {ids[:3]}, the subjects like "
            f"{sorted(wanted)[:3]}; use the same ids in both"
        )
    notes = []
    without = sorted(wanted - set(ids))
    if without:
        notes.append(
            f"{name}: no row for {len(without)} of {len(wanted)} subjects, such as {without[:3]}; their columns are missing"
        )
    unused = sorted(set(ids) - wanted)
    if unused:
        notes.append(
            f"{name}: {len(unused)} rows have no subject among the images, such as {unused[:3]}; they were left out"
        )
    return metadata, notes


def _read(source: Any) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        frame = source
        if frame.index.name in SUBJECT_COLUMNS:
            frame = frame.reset_index()
        return frame, "obs_meta"
    path = Path(source)
    if not path.is_file():
        raise CatalogError(f"{path}: there is no such file; obs_meta is a DataFrame or the path of a .csv or .tsv file")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        frame = pd.read_csv(
            path, sep=separator, dtype=dict.fromkeys(SUBJECT_COLUMNS, str), encoding="utf-8-sig", keep_default_na=True
        )
    except (ValueError, OSError) as error:
        raise CatalogError(f"{path}: could not be read as a table: {error}") from error
    return frame, str(path)


def _kind(series: pd.Series[Any], *, typed: bool) -> str:
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype if not series.isna().any() else object).infer_objects()
    if pd.api.types.is_bool_dtype(series):
        return "bool"
    if pd.api.types.is_integer_dtype(series):
        return "int"
    if pd.api.types.is_float_dtype(series):
        # Read from a file, a column of whole numbers with a gap becomes floats; it holds whole numbers all the same.
        values = series.dropna()
        whole = (
            not typed
            and series.isna().any()
            and len(values)
            and (values == values.round()).all()
            and values.abs().max() < 2**53
        )
        return "int" if whole else "float"
    if pd.api.types.is_datetime64_any_dtype(series):
        return "datetime"
    values = series.dropna()
    if len(values) and all(isinstance(value, bool | np.bool_) for value in values):
        return "bool"
    return "str"


def _values(series: pd.Series[Any], kind: str, what: str) -> Iterable[Any]:
    import pandas as pd

    converters: dict[str, Callable[[Any], Any]] = {
        "bool": _bool,
        "int": _int,
        "float": float,
        "str": _str,
        "datetime": _datetime,
    }
    convert = converters[kind]
    for value in series:
        if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
            yield None
            continue
        try:
            yield convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise CatalogError(
                f"{what}: {value!r} does not fit, the column holds {_KINDS[kind]} since it was created; convert it, or use another column "
                "name"
            ) from error


_KINDS = {"bool": "true and false", "int": "whole numbers", "float": "numbers", "str": "text", "datetime": "times"}


def _bool(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or value in (0, 1):
        return bool(value)
    raise ValueError("expected true or false")


def _str(value: Any) -> str:
    text = str(value)
    text.encode()  # lone surrogates cannot be stored, and would only be noticed by the commit
    return text


def _int(value: Any) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise OverflowError("the number does not fit into 64 bits")
    if number != value and not isinstance(value, str):
        raise ValueError("expected a whole number")
    return number


def _datetime(value: Any) -> np.datetime64:
    import pandas as pd

    time = pd.Timestamp(value)
    if time.tzinfo is not None:
        time = time.tz_convert("UTC").tz_localize(None)
    return np.datetime64(time.value, "ns")
