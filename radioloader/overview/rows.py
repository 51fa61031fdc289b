"""The table of volumes: its columns and rows, as the page's script takes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.overview.facts import CollectionFacts, class_names, missing
from radioloader.overview.look import Look
from radioloader.overview.pairing import Entry, Place
from radioloader.overview.wording import shortened

__all__ = ["TEXT", "left_out", "table"]

_CLASS_COLUMNS = 8
"""Columns for volumes of classes, at most; above, each label collection has one for all of them together."""
_USER_COLUMNS = 30
TEXT = 200
"""Characters of a text of the subjects' own columns that are shown, at most."""


@dataclass(frozen=True, slots=True)
class _Column:
    """``kind`` is ``"text"``, ``"number"`` or ``"sizes"`` (several numbers, sorted by their product); ``cell`` gives the value of an entry;
    ``hidden``: at first; ``folds``: hidden at first where all rows say the same, as the section Collections does already."""

    label: str
    kind: str
    cell: Callable[[int, Entry], Any]
    hidden: bool = False
    folds: bool = False


def table(
    cohort: Mapping[str, CollectionFacts],
    entries: Sequence[Entry],
    looks: Mapping[int, Look],
    flags: Sequence[Sequence[str]],
    user: Mapping[str, npt.NDArray[Any]],
    subjects: Sequence[str],
    *,
    longest: int = TEXT,
) -> dict[str, Any]:
    """Columns and rows for JSON.

    Args:
        cohort: The facts by collection.
        entries: What the rows are of.
        looks: What was seen of them, by their number; of some perhaps nothing.
        flags: What is odd about each.
        user: The subjects' own columns.
        subjects: Ids in the order of those columns.
        longest: Characters of the texts in those columns; longer ones end in an ellipsis.

    Returns:
        ``columns``: label, kind and whether hidden of each; ``rows``: ``v`` the cells, ``f`` what is odd.
    """
    columns = [*_standard(cohort, looks), *_classes(cohort, entries), *_users(user, subjects, longest)]
    rows = [
        {"v": [column.cell(number, entry) for column in columns], "f": list(flags[number])}
        for number, entry in enumerate(entries)
    ]
    alike = [len(rows) > 1 and len({str(row["v"][place]) for row in rows}) == 1 for place in range(len(columns))]
    # A column that says nothing about any row would only take room.
    filled = [any(row["v"][place] is not None for row in rows) for place in range(len(columns))]
    for row in rows:
        row["v"] = [value for value, there in zip(row["v"], filled, strict=True) if there]
    return {
        "columns": [
            {"label": column.label, "kind": column.kind, "hidden": column.hidden or (column.folds and same)}
            for column, there, same in zip(columns, filled, alike, strict=True)
            if there
        ],
        "rows": rows,
    }


def left_out(user: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """The subjects' own columns that are too many to show."""
    return list(user)[_USER_COLUMNS:]


def _number(value: Any) -> float | int | None:
    """A number for JSON: whole ones as they are, others of 6 digits; None for what is not finite."""
    if isinstance(value, int | np.integer) and abs(int(value)) < 2**53:
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return None
    rounded = float(f"{number:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _standard(cohort: Mapping[str, CollectionFacts], looks: Mapping[int, Look]) -> list[_Column]:
    def of(read: Callable[[CollectionFacts, int], Any]) -> Callable[[int, Entry], Any]:
        return lambda _, entry: read(cohort[entry.volumes[0][0]], entry.volumes[0][1])

    def statistic(read: Callable[[CollectionFacts, int], Any]) -> Callable[[int, Entry], Any]:
        return lambda _, entry: None if entry.image is None else _number(read(cohort[entry.image[0]], entry.image[1]))

    def percentile(which: int) -> Callable[[int, Entry], Any]:
        def read(number: int, _: Entry) -> Any:
            measured = looks[number].measured if number in looks else None
            return _number(measured.percentiles[which]) if measured is not None and measured.percentiles else None

        return read

    def verdict(facts: CollectionFacts, place: int) -> str | None:
        found = facts.verdicts[place]
        return None if found is None else found.describe()

    return [
        _Column("Subject", "text", lambda _, entry: entry.subject),
        _Column("Collection", "text", lambda _, entry: entry.volumes[0][0], folds=True),
        _Column("Volume", "text", of(lambda facts, place: str(facts.index.obs_ids[place])), hidden=True),
        _Column("Shape", "sizes", of(lambda facts, place: [int(n) for n in facts.index.shapes[place] if n])),
        _Column("Spacing, mm", "sizes", of(lambda facts, place: [_number(f"{v:.3g}") for v in facts.spacings[place]])),
        _Column("Axes", "text", of(lambda facts, place: facts.index.axcodes(place)), folds=True),
        _Column("dtype", "text", of(lambda facts, place: str(facts.dtypes[place])), folds=True),
        _Column("Lowest", "number", statistic(lambda facts, place: facts.low[place]), hidden=True),
        _Column("1st percentile", "number", percentile(0), hidden=True),
        _Column("Median", "number", percentile(3)),
        _Column("Mean", "number", statistic(lambda facts, place: facts.mean[place])),
        _Column("99th percentile", "number", percentile(-1), hidden=True),
        _Column("Highest", "number", statistic(lambda facts, place: facts.high[place]), hidden=True),
        _Column("Geometry", "text", of(verdict), folds=True),
    ]


def _classes(cohort: Mapping[str, CollectionFacts], entries: Sequence[Entry]) -> list[_Column]:
    labels = [facts for facts in cohort.values() if facts.kind == "label"]
    apart = sum(len(facts.class_values) for facts in labels) <= _CLASS_COLUMNS
    columns = []
    for facts in labels:
        names = class_names(facts)
        every = facts.class_values
        if apart:
            columns += [_ml(facts.name, f"{facts.name} {names[value]}, ml", facts.class_ml(value)) for value in every]
        elif every:
            total = facts.nonzero * facts.voxel_ml / facts.time_points
            columns.append(_ml(facts.name, f"{facts.name}, all {len(every)} classes, ml", total))
    return columns


def _ml(collection: str, label: str, values: npt.NDArray[np.float64]) -> _Column:
    """Volume of a class in an entry's volume of a label collection; the first where there are several."""

    def read(_: int, entry: Entry) -> Any:
        places: list[Place] = [place for place in entry.labels if place[0] == collection]
        return _number(values[places[0][1]]) if places else None

    return _Column(label, "number", read)


def _users(user: Mapping[str, npt.NDArray[Any]], subjects: Sequence[str], longest: int) -> list[_Column]:
    place_of = {subject: place for place, subject in enumerate(subjects)}
    return [_user(name, values, place_of, longest) for name, values in list(user.items())[:_USER_COLUMNS]]


def _user(name: str, values: npt.NDArray[Any], place_of: Mapping[str, int], longest: int) -> _Column:
    absent = missing(values)
    first = next((value for value, gone in zip(values.tolist(), absent, strict=True) if not gone), None)
    is_time = values.dtype.kind == "M"
    is_number = isinstance(first, int | float) and not isinstance(first, bool) and not is_time
    texts = values
    if is_time:
        whole_days = (values[~absent] == values[~absent].astype("M8[D]")).all()
        texts = np.datetime_as_string(values, unit="D" if whole_days else "s")

    def read(_: int, entry: Entry) -> Any:
        place = place_of.get(entry.subject)
        if place is None or absent[place]:
            return None
        return _number(values[place]) if is_number else shortened(str(texts[place]), longest)

    return _Column(name, "number" if is_number else "text", read)
