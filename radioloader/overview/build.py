"""The cohort report: looks at a store, and writes one HTML page."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radioloader._checks import as_whole
from radioloader._progress import Bar
from radioloader.config import StorageConfig, available_cores
from radioloader.container.radiobject import RadiObject
from radioloader.overview.contents import legend, named
from radioloader.overview.context import page_context
from radioloader.overview.look import CLASSES_SHOWN, Look, Viewer
from radioloader.overview.page import PICTURES_A_CHUNK, embed, page_folder, picture_chunks, write_page
from radioloader.overview.pairing import Entry, Place, evenly
from radioloader.overview.pictures import MIME
from radioloader.overview.rows import TEXT, left_out, table
from radioloader.overview.source import snapshot_of
from radioloader.overview.survey import Survey, survey
from radioloader.overview.wording import count, isolated
from radioloader.storage.reader import VolumeReader

__all__ = ["CohortReport", "report"]

_PAGE_BYTES = 48_000_000
"""Of the whole page: a little below 50 MB."""
_PICTURE_BYTES = 250_000
"""Of one picture at most: pages of small cohorts need not be as large as they may be."""
_LEAST_PICTURES = 4_000_000
"""Left for pictures where the table alone fills the page."""


_TEXTS = (TEXT, 100, 50, 25, 12)
"""Characters of a text in the table: the first with which it takes no more than half of the page."""


@dataclass(frozen=True, slots=True)
class CohortReport:
    """Result of :func:`report`.

    Attributes:
        path: The page.
        subjects: In the store.
        volumes: In the store.
        outliers: Why volumes are odd, by collection and obs_id.
        unreadable: Why volumes could not be read, by collection and obs_id.
        pictures: Pictures on the page.
        bytes: Size of the page.
        seconds: How long it took.
    """

    path: Path
    subjects: int
    volumes: int
    outliers: Mapping[tuple[str, str], list[str]]
    unreadable: Mapping[tuple[str, str], str] = field(default_factory=dict)
    pictures: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every volume that was looked at could be read."""
        return not self.unreadable

    def __str__(self) -> str:
        parts = [
            count(self.subjects, "subject"),
            count(self.volumes, "volume"),
            count(len(self.outliers), "outlier"),
            count(self.pictures, "picture"),
            *([f"{len(self.unreadable)} unreadable"] if self.unreadable else []),
        ]
        return f"{self.path}: {', '.join(parts)}; {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s"


def report(
    uri: str | os.PathLike[str] | RadiObject,
    out: str | os.PathLike[str],
    *,
    title: str | None = None,
    pictures: bool = True,
    most: int = 2000,
    workers: int | None = None,
    progress: bool = False,
    config: StorageConfig | None = None,
) -> CohortReport:
    """Write a page about a store: what it holds, what is odd, and a picture of each volume. It is one file that fetches nothing.

    Counts, geometry, classes, outliers and duplicates come from the catalog; voxels are read for percentiles, histograms and pictures.

    Args:
        uri: The store: a path, ``s3://bucket/prefix``, or a :class:`~radioloader.RadiObject`, such as a selection of subjects, which are
            then compared among themselves.
        out: Folder for ``index.html``, outside of the store; made where it is missing. An earlier
            report is replaced, other files are left alone.
        title: Of the page; None takes the store's name.
        pictures: Whether to make pictures, of which the page is patient data.
        most: Images (or labels without one) whose voxels are read, at most: outliers first, then evenly spread ones.
        workers: Threads; None takes all cores.
        progress: Whether to show progress on stderr.
        config: Access to the store; None takes the process's defaults. An opened store keeps its own.

    Raises:
        StoreNotFoundError, NotAStoreError, StoreVersionError: The store cannot be opened.
        ReadError: Its catalog cannot be read. A volume that cannot be read is a line in the report.
        ConfigError: ``out`` cannot be written, is within the store or has an ``index.html`` that is no report;
            ``uri`` is no store, or an argument is not allowed.
    """
    started = time.monotonic()
    most = as_whole(most, "most", minimum=0)
    threads = available_cores() if workers is None else as_whole(workers, "workers", minimum=1)
    snapshot = snapshot_of(uri, config)
    folder = page_folder(out, snapshot.store.uri)
    known = survey(snapshot)
    entries = known.entries
    flags = _flags(known, {})
    chosen = _choose(entries, flags, most)
    columns = (known.user, snapshot.subject_ids)
    # The table leaves its room; what voxels and legends will add to it is about 150 bytes a row.
    for longest in _TEXTS:
        size = len(embed(table(known.cohort, entries, {}, flags, *columns, longest=longest)).encode())
        if size <= _PAGE_BYTES // 2:
            break
    room = _PAGE_BYTES - size - 150 * len(entries)
    each = min(_PICTURE_BYTES, max(room, _LEAST_PICTURES) * 3 // 4 // max(len(chosen), 1)) if pictures else None
    with VolumeReader(snapshot.store.config) as reader:
        viewer = Viewer(snapshot, known.cohort, reader)
        looks = _look(viewer, [(number, entries[number]) for number in chosen], each, threads, shown=progress)
    unreadable = {place: reason for look in looks.values() for place, reason in look.unreadable.items()}
    flags = _flags(known, unreadable)
    found = table(known.cohort, entries, looks, flags, *columns, longest=longest)
    drawn = _number_pictures(found["rows"], entries, looks, viewer)
    path = write_page(
        folder,
        page_context(
            snapshot,
            known,
            title=title,
            looks=looks,
            unreadable=unreadable,
            left_out=left_out(known.user),
            longest=longest,
            pictures=pictures,
            data=embed(
                {
                    **found,
                    "legends": {name: legend(facts) for name, facts in known.cohort.items() if facts.class_values},
                    "mime": MIME,
                    "chunk": PICTURES_A_CHUNK,
                    "pictures": bool(drawn),
                }
            ),
        ),
        picture_chunks(drawn),
    )
    return CohortReport(
        path=path,
        subjects=len(snapshot.subject_ids),
        volumes=sum(map(len, known.cohort.values())),
        outliers={_id(known, place): reasons for place, reasons in known.outliers.items()},
        unreadable={_id(known, place): reason for place, reason in unreadable.items()},
        pictures=len(drawn),
        bytes=path.stat().st_size,
        seconds=time.monotonic() - started,
    )


def _id(known: Survey, place: Place) -> tuple[str, str]:
    return place[0], str(known.cohort[place[0]].index.obs_ids[place[1]])


def _flags(known: Survey, unreadable: Mapping[Place, str]) -> list[list[str]]:
    """What is odd about each entry: of its image, then of its labels."""
    same: dict[Place, str] = {}
    for group in known.duplicates:
        for place in group:
            other = group[1] if place == group[0] else group[0]
            more = f" and {count(len(group) - 2, 'other')}" if len(group) > 2 else ""
            same[place] = f"same voxels as {named(known.cohort, other)}{more}"
    flags = []
    for entry in known.entries:
        reasons: dict[str, None] = {}
        for place in entry.volumes:
            own = [*known.outliers.get(place, [])]
            own += [f"cannot be read: {unreadable[place]}"] if place in unreadable else []
            # A label may lie on the grids of several images, and would be told in the row of each; the section Duplicates has it once.
            own += [same[place]] if place in same and place == entry.volumes[0] else []
            prefix = "" if place == entry.volumes[0] else f"{isolated(place[0])}: "
            # Several labels of one collection may share a reason.
            reasons |= dict.fromkeys(prefix + reason for reason in own)
        flags.append(list(reasons))
    return flags


def _choose(entries: Sequence[Entry], flags: Sequence[Sequence[str]], most: int) -> list[int]:
    """Numbers of the entries that are looked at: all, or the odd ones and then evenly spread others."""
    if len(entries) <= most:
        return list(range(len(entries)))
    odd = [number for number, reasons in enumerate(flags) if reasons]
    others = [number for number, reasons in enumerate(flags) if not reasons]
    chosen = [odd[place] for place in evenly(len(odd), most)]
    chosen += [others[place] for place in evenly(len(others), most - len(chosen))]
    return sorted(chosen)


def _look(
    viewer: Viewer, entries: Sequence[tuple[int, Entry]], each: int | None, threads: int, *, shown: bool
) -> dict[int, Look]:
    """Look at entries side by side; each thread holds the voxels of one."""
    viewer.prepare()
    with (
        Bar("report", len(entries), "volumes", shown=shown) as bar,
        ThreadPoolExecutor(threads, "radioloader-report") as pool,
    ):
        running: dict[int, Future[Look]] = {
            number: pool.submit(viewer.look, entry, most=each) for number, entry in entries
        }
        looks = {}
        try:
            for number, future in running.items():
                looks[number] = future.result()
                bar.update(len(looks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return looks


def _number_pictures(
    rows: list[dict[str, Any]], entries: Sequence[Entry], looks: Mapping[int, Look], viewer: Viewer
) -> list[bytes]:
    """The pictures in the order of the rows, which get the numbers, the windows and the labels of theirs."""
    drawn: list[bytes] = []
    for number, row in enumerate(rows):
        look = looks.get(number)
        row["p"] = None
        if look is not None and look.picture is not None:
            row["p"] = len(drawn)
            drawn.append(look.picture)
            if entries[number].image is not None and np.isfinite(look.window).all():
                row["w"] = [float(f"{value:.6g}") for value in look.window]
            label = viewer.shown_label(entries[number])
            if label is not None:
                row["l"] = label[0]
                classes = viewer.cohort[label[0]].classes_of(label[1])
                row["c"] = classes[:CLASSES_SHOWN]
                row["m"] = len(classes) - len(row["c"])
    return drawn
