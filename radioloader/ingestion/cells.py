"""Cells of .csv and .tsv files, as people and spreadsheets write them."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

import numpy as np

from radioloader.errors import CatalogError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUBJECT_COLUMNS", "read_cells"]

_NO_ID = {"", "n/a"}
_MISSING = {
    *_NO_ID,
    "N/A",
    "#N/A",
    "#NA",
    "NA",
    "<NA>",
    "NaN",
    "nan",
    "-NaN",
    "-nan",
    "NULL",
    "null",
    "None",
    "#N/A N/A",
}
SUBJECT_COLUMNS = ("obs_subject_id", "participant_id", "subject_id", "subject")


def read_cells(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The cells of a .csv or .tsv file as text; ``n/a`` and empty ones are missing.

    Raises:
        CatalogError: It cannot be read.
    """
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            rows = list(csv.reader(stream, delimiter=_separator(os.fspath(path), first)))
    except (OSError, ValueError, csv.Error) as error:
        raise CatalogError(f"{path}: could not be read as a table: {error}") from error
    numbered = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
    if not numbered:
        raise CatalogError(f"{path}: could not be read as a table: it has no columns")
    header = [name.strip() for name in numbered[0][1]]
    while header and not header[-1]:
        header.pop()  # spreadsheets end lines with the delimiters of columns that are empty
    cells = []
    for number, row in numbered[1:]:
        if any(cell.strip() for cell in row[len(header) :]):
            raise CatalogError(
                f"{path}: line {number} has {len(row)} cells, and the first line names {len(header)} columns; quote cells that hold the "
                "delimiter, or name all columns"
            )
        cells.append([*row[: len(header)], *[""] * (len(header) - len(row))])
    # All as text: what pandas takes for numbers may be codes (a site called 0012), and is not to be undone.
    columns = {}
    for place, name in enumerate(header):
        missing = _NO_ID if name in SUBJECT_COLUMNS else _MISSING
        values = [np.nan if row[place].strip() in missing else row[place] for row in cells]
        columns[place] = pd.Series(values, dtype=object)
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index(header)
    return frame


def _separator(path: str, header: str) -> str:
    """Tabs in .tsv files; in others commas, or what spreadsheets of countries with a decimal comma write."""
    if path.lower().endswith(".tsv"):
        return "\t"
    return ";" if ";" in header and "," not in header else ","
