"""What a store or a collection shows of itself: a few lines of text, or a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from radioloader.container.collection import VolumeCollection
    from radioloader.container.radiobject import RadiObject

__all__ = ["collection_html", "describe_html", "describe_text"]

_HEADINGS = ("collection", "kind", "volumes", "dtype", "shape", "spacing (mm)", "axes")
_SHOWN = 8


def describe_text(store: RadiObject) -> str:
    """See :meth:`RadiObject.describe`."""
    rows = [_HEADINGS, *(_row(collection) for collection in store.collections.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_heading(store), *(f"  {line}" for line in (table if len(rows) > 1 else ["no collections"]))])


def describe_html(store: RadiObject) -> str:
    """The same for a notebook."""
    rows = [_row(collection) for collection in store.collections.values()]
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in _heading(store))
    return f"<div>{lines}{_table(_HEADINGS, rows)}</div>"


def collection_html(collection: VolumeCollection) -> str:
    """A collection for a notebook: what it is, and its first volumes."""
    headings = ("obs_id", "obs_subject_id", "dtype", "shape", "spacing (mm)", "axes")
    rows = [
        (v.obs_id, v.obs_subject_id, v.ref.dtype, _joined(v.shape), _joined(v.spacing), v.axcodes)
        for v in collection.head(_SHOWN)
    ]
    more = f"<div>and {len(collection) - _SHOWN} more</div>" if len(collection) > _SHOWN else ""
    return f"<div><div>{html.escape(repr(collection))}</div>{_table(headings, rows)}{more}</div>"


def _heading(store: RadiObject) -> list[str]:
    subjects = f"{len(store)} of {len(store.snapshot.subject_ids)}" if store.is_view else str(len(store))
    columns = store.obs_meta.columns[1:]
    return [
        f"RadiObject {store.uri}, version {store.version}",
        f"{subjects} subjects; columns: {', '.join(columns) or 'none'}",
    ]


def _row(collection: VolumeCollection) -> tuple[str, ...]:
    index, places = collection.snapshot.index(collection.name), collection.places
    spacings = np.linalg.norm(index.affines[places, :3, :3], axis=1)
    return (
        collection.name,
        collection.kind,
        str(len(collection)),
        _several(index.dtypes(places)),
        _range(index.shapes[places]),
        _range(spacings),
        _several(sorted(set(index.all_axcodes[places].tolist()))),
    )


def _several(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "-"


def _joined(values: Iterable[float]) -> str:
    return "x".join(f"{value:.4g}" for value in values)


def _range(values: Any) -> str:
    """Size of all, or of the smallest and the largest on each axis. Of shapes, a last axis that nobody has is left out."""
    if not len(values):
        return "-"
    low, high = values.min(axis=0), values.max(axis=0)
    if len(low) == 4 and not high[3]:
        low, high = low[:3], high[:3]
    first, last = _joined(low.tolist()), _joined(high.tolist())
    return first if first == last else f"{first} to {last}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
