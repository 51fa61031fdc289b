"""A table of files: a row for each subject with a column for each collection, or a row for each volume."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from radioloader.errors import CatalogError, ConfigError
from radioloader.formats.nifti_names import SUFFIXES
from radioloader.ingestion.cells import SUBJECT_COLUMNS, read_cells
from radioloader.ingestion.discover import is_label_name
from radioloader.ingestion.intake import split_component
from radioloader.ingestion.layouts.plan import Files, LayoutPlan
from radioloader.ingestion.metadata import MetadataTable
from radioloader.ingestion.naming import normal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES_OF_TABLES", "plan"]

SUFFIXES_OF_TABLES = (".csv", ".tsv")
_PATHS = ("path", "file", "filename", "filepath", "file_path", "uri", "nifti", "volume")
_COLLECTIONS = ("collection", "modality", "sequence", "contrast", "channel")
_OTHER_FORMATS = re.compile(r".*\.(nrrd|mh[ad]|mg[zh]|np[yz]|dcm|png|jpg|tiff?|h5|zip)", re.I | re.S)


def plan(path: str) -> LayoutPlan:
    """What a table says. Paths in it are absolute, or relative to the table's folder.

    Args:
        path: A .csv or .tsv file.

    Raises:
        ConfigError: It has no subjects, or no column of paths.
        CatalogError: It cannot be read.
    """
    frame = read_cells(path)
    key = next((column for column in SUBJECT_COLUMNS if column in frame.columns), None)
    if key is None:
        raise ConfigError(
            f"{path}: no column holds the subject id; expected one of {', '.join(SUBJECT_COLUMNS)}, got "
            f"{', '.join(map(str, frame.columns))}"
        )
    ids = [normal(_text(value)) for value in frame[key]]
    folder = os.path.dirname(path)
    columns = [column for column in frame.columns if column != key and _holds_paths(frame[column], folder)]
    named = next((column for column in frame.columns if str(column).lower() in _COLLECTIONS), None)
    if not columns:
        raise ConfigError(
            f"{path}: no column holds paths of NIfTI files ({', '.join(SUFFIXES)}) or of folders, relative to {folder}; its columns "
            f"are {', '.join(map(str, frame.columns))}"
        )
    long = named is not None and len(columns) == 1 and str(columns[0]).lower() in _PATHS
    why = (
        f"its column {columns[0]!r} holds a file in each row, and {str(named)!r} says the collection"
        if long
        else f"it has a row for each subject, and paths of files in {', '.join(map(repr, columns))}"
    )
    made = LayoutPlan("manifest", path, why)
    empty = [number + 1 for number, subject in enumerate(ids) if not subject]
    if empty:
        made.notes.append(f"{len(empty)} rows have no {key} and were left out, the first is row {empty[0]}")
    groups: dict[str, Files] = {}
    nameless = []
    for column in columns:
        names = [_text(name) for name in frame[named]] if long else [str(column)] * len(frame)
        for number, (subject, cell, name) in enumerate(zip(ids, map(_text, frame[column]), names, strict=True), 1):
            if not subject or not cell:
                continue
            if not name:
                nameless.append(number)
                continue
            if "://" in cell:
                raise ConfigError(
                    f"{path}: row {number} has {cell!r}, and files are read from local folders; copy them, or mount the bucket"
                )
            found = groups.setdefault(name, {}).setdefault(subject, [])
            if (file := _absolute(cell, folder)) not in found:
                found.append(file)
    if nameless:
        made.notes.append(
            f"{len(nameless)} rows have a path and no {named}, and were left out; the first is row {nameless[0]}"
        )
    for name, files in groups.items():
        (made.labels if is_label_name(name) else made.images)[name] = files
    if not groups:
        raise ConfigError(f"{path}: no row has both a subject and a path")
    others = [column for column in frame.columns if column not in (key, *columns, *([named] if long else []))]
    for column in list(others):
        values = [value for cell in frame[column] if (value := _text(cell))]
        if 2 * sum(_OTHER_FORMATS.fullmatch(value) is not None for value in values) > len(values) > 0:
            others.remove(column)
            made.notes.append(
                f"column {column!r} holds files that are not NIfTI, such as {values[0]}, and was left out; convert them, and name "
                "the new ones"
            )
    made.obs_meta = _metadata(path, key, ids, frame, others, made)
    return made


def _holds_paths(cells: Any, folder: str) -> bool:
    """Whether most of a column's values are NIfTI files by their names, or folders that are there."""
    values = [value for cell in cells if (value := _text(cell))]
    paths = [
        value
        for value in values
        if split_component(value)[0].lower().endswith(SUFFIXES)
        or (os.sep in value and os.path.isdir(_absolute(value, folder)))
    ]
    return bool(values) and 2 * len(paths) > len(values)


def _text(cell: Any) -> str:
    """A cell without blanks around it; empty where it is missing."""
    return cell.strip() if isinstance(cell, str) else ""


def _absolute(text: str, folder: str) -> str:
    path, component = split_component(os.path.expanduser(text))
    return os.path.abspath(os.path.join(folder, path)) + ("" if component is None else f"#{component}")


def _metadata(
    path: str, key: str, ids: list[str], frame: pd.DataFrame, columns: list[str], made: LayoutPlan
) -> MetadataTable | None:
    """The columns that say the same in all rows of a subject, a row for each subject."""
    first: dict[str, int] = {}
    kept = list(columns)
    for place, subject in enumerate(ids):
        if not subject:
            continue
        start = first.setdefault(subject, place)
        for column in list(kept):
            old, new = frame[column].iloc[start], frame[column].iloc[place]
            if _text(old) != _text(new):
                kept.remove(column)
    differ = [column for column in columns if column not in kept]
    if differ:
        made.notes.append(
            f"the columns {', '.join(map(repr, differ))} differ between rows of one subject, and were left out"
        )
    if not kept:
        return None
    rows = frame.iloc[list(first.values())][kept].reset_index(drop=True)
    rows.insert(0, key, list(first))
    try:
        return MetadataTable.check(path, key, rows)
    except CatalogError as error:
        made.notes.append(f"the subjects' columns were left out: {error}")
        return None
