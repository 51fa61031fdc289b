"""Subjects' own columns: from a DataFrame, a CSV or a TSV to typed rows of ``obs_meta``."""

from __future__ import annotations

import os
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

__all__ = ["SUBJECT_COLUMNS", "Metadata", "load_metadata"]

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


def load_metadata(
    source: pd.DataFrame | str | os.PathLike[str], existing: Mapping[str, Column], subjects: Sequence[str]
) -> tuple[Metadata, list[str]]:
    """Read subjects' metadata.

    Args:
        source: A DataFrame, or the path of a .csv or .tsv file (``n/a`` and empty cells are missing). One column holds the subject's
            id: ``obs_subject_id``, ``participant_id`` (BIDS), ``subject_id`` or ``subject``.
        existing: The users' columns that the store has; values are converted to their kinds.
        subjects: Ids that are being ingested.

    Returns:
        The rows of ``subjects``, and notes.

    Raises:
        CatalogError: No id column, an id twice, a column that does not fit the store's.
    """
    frame, name = _read(source)
    key = next((column for column in SUBJECT_COLUMNS if column in frame.columns), None)
    if key is None:
        raise CatalogError(
            f"{name}: no column holds the subject id; expected one of {', '.join(SUBJECT_COLUMNS)}, got {list(frame.columns)}"
        )
    ids = [str(value) for value in frame[key]]
    twice = sorted({subject for subject in ids if ids.count(subject) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise CatalogError(f"{name}: {key} is not unique, such as {twice[:3]}; keep one row for each subject")
    wanted = set(subjects)
    if not wanted & set(ids) and wanted & {f"sub-{subject}" for subject in ids}:
        ids = [f"sub-{subject}" for subject in ids]  # BIDS allows the bare label in participants.tsv
    kept = [place for place, subject in enumerate(ids) if subject in wanted]
    metadata = Metadata([], {ids[place]: {} for place in kept})
    for column in frame.columns:
        if column == key:
            continue
        if frame.columns.tolist().count(column) > 1:
            raise CatalogError(f"{name}: the column {column!r} occurs more than once; rename one")
        on_disk = f"{USER_PREFIX}{column}"
        series = frame[column]
        old = existing.get(on_disk)
        kind = _kind(series) if old is None else old.kind
        metadata.columns.append(Column(on_disk, kind, nullable=kind in ("str", "int", "bool")))
        for place, value in zip(kept, _values(series.iloc[kept], kind, f"{name}, column {column!r}"), strict=True):
            metadata.rows[ids[place]][on_disk] = value
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


def _kind(series: pd.Series[Any]) -> str:
    import pandas as pd

    if pd.api.types.is_bool_dtype(series):
        return "bool"
    if pd.api.types.is_integer_dtype(series):
        return "int"
    if pd.api.types.is_float_dtype(series):
        # pandas turns a column of whole numbers with a gap into floats; it holds whole numbers all the same
        values = series.dropna()
        whole = series.isna().any() and len(values) and (values == values.round()).all() and values.abs().max() < 2**53
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
        "str": str,
        "datetime": _datetime,
    }
    convert = converters[kind]
    for value in series:
        if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
            yield None
            continue
        try:
            yield convert(value)
        except (TypeError, ValueError) as error:
            raise CatalogError(
                f"{what}: {value!r} is not a value of kind {kind}, which this column has; {error}"
            ) from error


def _bool(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or value in (0, 1):
        return bool(value)
    raise ValueError("expected true or false")


def _int(value: Any) -> int:
    number = int(value)
    if number != value:
        raise ValueError("expected a whole number; the column was created with whole numbers")
    return number


def _datetime(value: Any) -> np.datetime64:
    import pandas as pd

    time = pd.Timestamp(value)
    if time.tzinfo is not None:
        time = time.tz_convert("UTC").tz_localize(None)
    return np.datetime64(time.value, "ns")
