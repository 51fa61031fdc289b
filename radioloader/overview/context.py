"""All that the page's template is given."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from markupsafe import Markup

from radioloader.overview.contents import collection_rows, duplicate_groups, intensities, labels, named
from radioloader.overview.look import Look
from radioloader.overview.measure import SAMPLE, WHOLE, Measured
from radioloader.overview.outliers import RULES
from radioloader.overview.pairing import Place
from radioloader.overview.pictures import CT_WINDOW, PALETTE
from radioloader.overview.source import SubjectsSnapshot
from radioloader.overview.survey import Survey
from radioloader.overview.wording import count, isolated, listed
from radioloader.storage.snapshot import Snapshot

__all__ = ["page_context"]

_SHOWN = 100
"""Rows of the lists above the table; the table has all."""
_VERSIONS = 20
_SECTIONS = (
    ("summary", "Summary"),
    ("collections", "Collections"),
    ("intensities", "Intensities"),
    ("labels", "Labels"),
    ("missing", "Missing values"),
    ("outliers", "Outliers"),
    ("duplicates", "Duplicates"),
    ("problems", "Failed and skipped"),
    ("volumes", "Volumes"),
    ("about", "How to read this"),
)
"""Ids and names; those of which there is nothing are left out."""


def page_context(
    snapshot: Snapshot,
    known: Survey,
    *,
    title: str | None,
    looks: Mapping[int, Look],
    unreadable: Mapping[Place, str],
    left_out: Sequence[str],
    longest: int,
    pictures: bool,
    data: Markup,
) -> dict[str, Any]:
    """Values of the template.

    Args:
        snapshot: The store.
        known: What its catalog says.
        title: Of the page; None takes the store's name.
        looks: What was seen of its entries, by their number.
        unreadable: Volumes that cannot be read.
        left_out: The subjects' columns that the table has no room for.
        longest: Characters of a text in those columns that the table shows.
        pictures: Whether pictures were wanted.
        data: The table, for the script.
    """
    uri = snapshot.store.uri
    measured: dict[Place, Measured] = {}
    for number, look in looks.items():
        image = known.entries[number].image
        if image is not None and look.measured is not None:
            measured[image] = look.measured

    def by_subject(place: Place) -> tuple[str, str, int]:
        return str(known.cohort[place[0]].index.subject_ids[place[1]]), *place

    outliers = [
        {
            "subject": str(known.cohort[name].index.subject_ids[number]),
            "volume": named(known.cohort, (name, number)),
            "reasons": [
                *known.outliers.get((name, number), []),
                *([f"cannot be read: {unreadable[name, number]}"] if (name, number) in unreadable else []),
            ],
        }
        for name, number in sorted({*known.outliers, *unreadable}, key=by_subject)
    ]
    parts: dict[str, Any] = {
        "collections": collection_rows(known.cohort, known.lacking),
        "intensities": intensities(known.cohort, measured),
        "labels": labels(known.cohort),
    }
    return {
        **parts,
        "title": title if title is not None else f"Cohort {uri.rstrip('/').rpartition('/')[2]}",
        "uri": uri,
        "store_version": snapshot.commits.version,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": _version(),
        "sections": [(id_, name) for id_, name in _SECTIONS if id_ == "collections" or parts.get(id_, True)],
        "cards": _cards(snapshot, known, len(outliers), len(unreadable)),
        "columns": listed(list(map(isolated, known.missing)), 8),
        "lacking": [
            (name, len(which), listed(list(map(isolated, which)), 20)) for name, which in known.lacking.items() if which
        ],
        "columns_missing": [
            (
                name,
                int(gone.sum()),
                listed([isolated(s) for s, no in zip(snapshot.subject_ids, gone, strict=True) if no], 20),
            )
            for name, gone in known.missing.items()
            if gone.any()
        ],
        "outliers": outliers,
        "duplicates": duplicate_groups(known.cohort, known.duplicates),
        "failed": known.failed,
        "left_out": known.left_out,
        "no_volumes": known.no_volumes,
        "part_of": _part_of(snapshot),
        "shown": _SHOWN,
        "picture_notes": _picture_notes(len(known.entries), len(looks), pictures),
        "rules": RULES,
        "source_notes": _source_notes(left_out, longest),
        "history": [
            {
                "version": row["version"],
                "time": datetime.datetime.fromtimestamp(row["time"], datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "message": row["message"],
            }
            for row in snapshot.store.history()
            if row["version"] <= snapshot.commits.version
        ][: -_VERSIONS - 1 : -1],
        "data": data,
    }


def _part_of(snapshot: Snapshot) -> str:
    """That the page is of some of a store's subjects; empty where it is of all."""
    if not isinstance(snapshot, SubjectsSnapshot):
        return ""
    return f"{len(snapshot.subject_ids):,} of its {count(len(snapshot.whole.subject_ids), 'subject')}"


def _version() -> str:
    try:
        return version("radioloader")
    except PackageNotFoundError:  # run from a folder of sources
        return ""


def _cards(snapshot: Snapshot, known: Survey, outliers: int, unreadable: int) -> list[tuple[str, str, str, bool]]:
    """Name, value, note, and whether it asks for attention."""
    kinds = {kind: sum(len(f) for f in known.cohort.values() if f.kind == kind) for kind in ("image", "label")}
    lacking = sum(map(len, known.lacking.values()))
    values = sum(int(gone.sum()) for gone in known.missing.values())
    same = sum(map(len, known.duplicates))
    return [
        ("Subjects", f"{len(snapshot.subject_ids):,}", "", False),
        ("Images", f"{kinds['image']:,}", "", False),
        ("Labels", f"{kinds['label']:,}", "", False),
        ("Outliers", f"{outliers:,}", f"{unreadable} cannot be read" if unreadable else "volumes", outliers > 0),
        ("Duplicates", f"{same:,}", "volumes", same > 0),
        ("Missing volumes", f"{lacking:,}", "", lacking > 0),
        ("Missing values", f"{values:,}", "of subject columns", values > 0),
        ("Failed", f"{len(known.failed):,}", "at ingest", bool(known.failed)),
        ("Left out", f"{len(known.left_out):,}", "files", bool(known.left_out)),
    ]


def _picture_notes(entries: int, looked: int, pictures: bool) -> list[str]:
    if not pictures:
        return ["The page was made without pictures."]
    which = (
        f"{looked:,} of {entries:,} rows have one: what is odd by the catalog, and evenly spread others. Percentiles and histograms are "
        "of those images."
    )
    return [
        *([which] if looked < entries else []),
        "Axial, coronal and sagittal plane of the voxel grid, in true proportions. Radiological convention: the patient's left (L) is at "
        "the right of the axial and the coronal plane; the sagittal plane has the front (A) at its left. Of oblique grids the planes are "
        "those of the grid.",
        "Each plane is the one that shows most of the label; without a label, the middle of what is not empty.",
        "Drawn is the first label on the image's grid that is not empty, with classes in the colours of the section Labels; after "
        f"{len(PALETTE)} classes the colours begin anew.",
        f"Grey values: {CT_WINDOW[0]:.0f} to {CT_WINDOW[1]:.0f} HU for CT (by its DICOM modality or name, or values below -500), else the "
        "1st to the 99th percentile. A picture's own window is shown when it is opened.",
        "Of 4D volumes the first time point is drawn and measured.",
    ]


def _source_notes(left_out: Sequence[str], longest: int) -> list[str]:
    return [
        "Counts, geometry, lowest, highest, mean and standard deviation, classes and hashes were noted at ingest, from all voxels.",
        f"Percentiles are of all finite voxels of volumes of up to {WHOLE:,} voxels, and else of about as many in whole tiles that are "
        f"spread over the volume. Histograms are of up to {SAMPLE:,} of those voxels of each volume.",
        "Volumes of classes are voxel counts times the volume of a voxel, of 4D labels the mean of their time "
        "points. Class names are those that the ingest was given.",
        "Duplicates have the same dtype, shape, scaling, affine and voxels; empty labels are not counted as such.",
        f"Texts in subject columns are cut to {longest} characters in the table, and end in \u2026 then.",
        *([f"Subject columns without room in the table: {listed(list(left_out), 30)}."] if left_out else []),
    ]
