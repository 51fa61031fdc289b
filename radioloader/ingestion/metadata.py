"""Subjects' own columns: from a DataFrame, a CSV or a TSV to typed rows of ``obs_meta``."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radioloader.errors import CatalogError
from radioloader.ingestion.cells import SUBJECT_COLUMNS, read_cells
from radioloader.storage.snapshot import USER_PREFIX
from radioloader.storage.table import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Metadata", "MetadataTable", "load_metadata", "read_table"]


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
        optional: Whether it was found beside the images: when it does not fit, it is left out, and the images come in.
    """

    name: str
    key: str
    ids: list[str]
    frame: pd.DataFrame
    typed: bool
    optional: bool = False

    @classmethod
    def check(cls, name: str, key: str, frame: pd.DataFrame, *, typed: bool = False) -> MetadataTable:
        """A table whose columns and ids can be used.

        Args:
            name: As the attribute.
            key: As the attribute.
            frame: As the attribute.
            typed: As the attribute.

        Raises:
            CatalogError: It has an id or a column twice, or a row without an id.
        """
        by_text: dict[str, Any] = {}
        for column in frame.columns:
            text = str(column)
            if text in by_text:
                both = by_text[text]
                raise CatalogError(
                    f"{name}: the column {column!r} occurs more than once; rename one"
                    if type(both) is type(column)
                    else f"{name}: the columns {both!r} and {column!r} have the same name in a store; rename one"
                )
            by_text[text] = column
            if problem := _text_problem(text):
                raise CatalogError(f"{name}: the column name {column!r} {problem}; rename it")
        empty = np.flatnonzero(frame[key].isna())
        if empty.size:
            raise CatalogError(
                f"{name}: {empty.size} rows have no {key}, the first is row {empty[0] + 1}; fill it in, or remove the row"
            )
        ids = [unicodedata.normalize("NFC", str(value)) for value in frame[key]]
        twice = sorted(subject for subject, count in Counter(ids).items() if count > 1)
        if twice:
            raise CatalogError(f"{name}: {key} is not unique, such as {twice[:3]}; keep one row for each subject")
        return cls(name, key, ids, frame, typed)


def read_table(source: pd.DataFrame | str | os.PathLike[str] | MetadataTable) -> MetadataTable:
    """Read the table of subjects.

    Args:
        source: A DataFrame, or the path of a .csv or .tsv file (``n/a`` and empty cells are missing). One column holds the subject's
            id: ``obs_subject_id``, ``participant_id`` (BIDS), ``subject_id`` or ``subject``. A table that was read already stays as it is.

    Raises:
        CatalogError: It cannot be read, has no id column, or an id or a column twice.
    """
    if isinstance(source, MetadataTable):
        return source
    frame, name = _read(source)
    key = next((column for column in SUBJECT_COLUMNS if column in frame.columns), None)
    if key is None:
        raise CatalogError(
            f"{name}: no column holds the subject id; expected one of {', '.join(SUBJECT_COLUMNS)}, got {list(frame.columns)}"
        )
    return MetadataTable.check(name, key, frame, typed=not isinstance(source, str | os.PathLike))


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
    if not {*subjects, *map(_person, subjects)} & set(ids):
        ids = [f"sub-{subject}" for subject in ids]  # BIDS allows the bare label in participants.tsv
    place_of = {subject: place for place, subject in enumerate(ids)}
    # participants.tsv has one row for a person, whose sessions are subjects of their own here.
    row_of = {subject: subject if subject in place_of else _person(subject) for subject in sorted(wanted)}
    row_of = {subject: row for subject, row in row_of.items() if row in place_of}
    kept = sorted({place_of[row] for row in row_of.values()})
    metadata = Metadata([], {subject: {} for subject in row_of})
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
        values = _values(series.iloc[kept], kind, f"{name}, column {column!r}", new=old is None)
        by_place = dict(zip(kept, values, strict=True))
        for subject, row in row_of.items():
            metadata.rows[subject][on_disk] = by_place[place_of[row]]
    if not row_of and wanted:
        raise CatalogError(
            f"{name}: none of its {len(ids)} rows is of a subject here; its {key} are like {table.ids[:3]}, the subjects like "
            f"{sorted(wanted)[:3]}; use the same ids in both"
        )
    notes = []
    shared = [subject for subject, row in row_of.items() if row != subject]
    if shared:
        notes.append(
            f"{name}: {len(shared)} subjects have no row of their own and get that of the person, such as {shared[0]!r} that of "
            f"{row_of[shared[0]]!r}"
        )
    without = sorted(wanted - set(row_of))
    if without:
        notes.append(
            f"{name}: no row for {len(without)} of {len(wanted)} subjects, such as {without[:3]}; their columns are missing"
        )
    unused = sorted(set(ids) - set(row_of.values()))
    if unused:
        notes.append(
            f"{name}: {len(unused)} rows have no subject among the images, such as {unused[:3]}; they were left out"
        )
    return metadata, notes


def _person(subject: str) -> str:
    """The ``sub-`` entity of a BIDS id with more entities; other ids as they are."""
    match = re.match(r"(sub-[A-Za-z0-9]+)_", subject)
    return match.group(1) if match else subject


def _read(source: Any) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        frame = source
        if frame.index.name in SUBJECT_COLUMNS:
            frame = frame.reset_index()
        return frame, "obs_meta"
    if not isinstance(source, str | os.PathLike):
        raise CatalogError(
            f"obs_meta is a {type(source).__name__}; give a DataFrame or the path of a .csv or .tsv file"
        )
    path = Path(source)
    if path.is_dir():
        raise CatalogError(f"{path}: this is a folder; obs_meta is a DataFrame or the path of a .csv or .tsv file")
    if not path.is_file():
        raise CatalogError(f"{path}: there is no such file; obs_meta is a DataFrame or the path of a .csv or .tsv file")
    return read_cells(path), str(path)


def _kind(series: pd.Series[Any], *, typed: bool) -> str:
    import pandas as pd

    if not typed:
        return _kind_of_text([text for text in series if isinstance(text, str)])
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype if not series.isna().any() else object).infer_objects()
    if pd.api.types.is_bool_dtype(series):
        return "bool"
    if pd.api.types.is_integer_dtype(series):
        return "int"
    if pd.api.types.is_float_dtype(series):
        return "float"
    if pd.api.types.is_datetime64_any_dtype(series):
        return "datetime"
    values = series.dropna()
    if len(values) and all(isinstance(value, bool | np.bool_) for value in values):
        return "bool"
    return "str"


_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.I)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def _kind_of_text(texts: Sequence[str]) -> str:
    """The kind of a file's column, which is not text only where nothing is lost: ``007`` is a code, and so is a number that is too long."""
    texts = [text.strip() for text in texts]
    if not texts:
        return "str"
    if all(text.lower() in _TRUTH for text in texts):
        return "bool"
    whole = [int(text) for text in texts if _WHOLE.fullmatch(text)]
    if len(whole) == len(texts):
        return "int" if all(-(2**63) <= number < 2**63 for number in whole) else "str"
    if all(_NUMBER.fullmatch(text) for text in texts):
        return "float" if all(abs(number) <= 2**53 for number in whole) else "str"
    if all(_TIME.fullmatch(text) for text in texts):
        try:
            for text in texts:
                _datetime(text)
        except ValueError:  # no such day, or out of range
            return "str"
        # Times with and without a zone side by side do not say which moment is meant.
        return "datetime" if len({_TIME.fullmatch(text).group(4) is None for text in texts}) == 1 else "str"  # type: ignore[union-attr]
    return "str"


def _values(series: pd.Series[Any], kind: str, what: str, *, new: bool) -> Iterable[Any]:
    import pandas as pd

    converters: dict[str, Callable[[Any], Any]] = {
        "bool": _bool,
        "int": _int,
        "float": _float,
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
            if isinstance(error, _Unfit):
                raise CatalogError(f"{what}: {value!r} {error}") from error
            since = "the new column would hold" if new else "the column holds"
            raise CatalogError(
                f"{what}: {value!r} does not fit, {since} {_KINDS[kind]}{'' if new else ' since it was created'}; convert it, or use "
                "another column name"
            ) from error


_KINDS = {"bool": "true and false", "int": "whole numbers", "float": "numbers", "str": "text", "datetime": "times"}


class _Unfit(ValueError):
    """A value that no column can hold; says why, and how to go on."""


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        return (
            _TRUTH[value.strip().lower()] if value.strip().lower() in _TRUTH else bool(("0", "1").index(value.strip()))
        )
    if isinstance(value, bool | np.bool_) or value in (0, 1):
        return bool(value)
    raise ValueError("expected true or false")


def _text_problem(text: str) -> str | None:
    """Why a store cannot keep a text as it is, or None."""
    if "\0" in text:
        return "holds a NUL character, which a store does not keep"
    try:
        text.encode()
    except UnicodeEncodeError:  # would only be noticed by the commit
        return "is not valid Unicode (it holds a lone surrogate)"
    return None


def _str(value: Any) -> str:
    text = str(value)
    if problem := _text_problem(text):
        raise _Unfit(f"{problem}; remove it")
    return text


def _int(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip()
        # 1.0 is how tables write whole numbers of a column that has gaps; 007 is a code, and would not come back.
        number = int(text) if _WHOLE.fullmatch(text) else _whole(_float(text))
    else:
        number = _whole(value)
    if not -(2**63) <= number < 2**63:
        raise _Unfit(
            "is a whole number of more than 64 bits with sign (-2**63 to 2**63 - 1); convert the column to text"
        )
    return number


def _whole(value: Any) -> int:
    number = int(value)
    if number != value:
        raise ValueError("expected a whole number")
    return number


def _float(value: Any) -> float:
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise ValueError("expected a number")
    return float(value)


def _datetime(value: Any) -> np.datetime64:
    import pandas as pd

    if isinstance(value, str):
        value = value.strip()
        if not _TIME.fullmatch(value):
            raise ValueError("expected a date or time in ISO 8601, such as 2024-05-01 or 2024-05-01T10:30:00")
    elif isinstance(value, float | int | np.number):
        raise ValueError("expected a time")
    try:
        time = pd.Timestamp(value)
        if time.tzinfo is not None:
            time = time.tz_convert("UTC").tz_localize(None)
        return np.datetime64(time.as_unit("ns").value, "ns")
    except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
        raise _Unfit("is outside the times that a store holds, 1677 to 2262; convert the column to text") from error
