"""``radioloader.export``: a store as a folder of files."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from radioloader._checks import as_whole
from radioloader._progress import Bar
from radioloader.config import StorageConfig, available_cores
from radioloader.container.radiobject import RadiObject
from radioloader.errors import ConfigError, ExportError
from radioloader.exporting.bids import BidsLayout
from radioloader.exporting.decathlon import DecathlonLayout
from radioloader.exporting.names import check_paths
from radioloader.exporting.nifti import NiftiLayout
from radioloader.exporting.nnunet import NnunetLayout
from radioloader.exporting.plan import Layout
from radioloader.exporting.report import ExportReport
from radioloader.exporting.selection import select
from radioloader.exporting.table import PARTICIPANTS
from radioloader.exporting.target import check_target, whole_folder
from radioloader.exporting.write import write_units

__all__ = ["LAYOUTS", "export"]

LAYOUTS: dict[str, type[Layout]] = {
    "nifti": NiftiLayout,
    "nnunet": NnunetLayout,
    "decathlon": DecathlonLayout,
    "bids": BidsLayout,
}
_SHOWN = 3


def export(
    uri: str | os.PathLike[str] | RadiObject,
    out: str | os.PathLike[str],
    *,
    layout: str = "nifti",
    images: Sequence[str] | str | None = None,
    labels: Sequence[str] | str | None = None,
    names: Mapping[str, str] | None = None,
    workers: int | None = None,
    config: StorageConfig | None = None,
    progress: bool | Callable[[int, int], object] = False,
) -> ExportReport:
    """Write a store's volumes as files, in a folder that other programs and :func:`radioloader.ingest` read.

    Each file has the voxels, the dtype, the scaling and the geometry of the file that the volume was ingested from. The folder appears when
    it is whole. A volume that cannot be read is reported, and the rest is written.

    Args:
        uri: The store: a local path, ``s3://bucket/prefix``, or a :class:`~radioloader.RadiObject`, such as a selection of subjects.
        out: Folder, which is not there yet or empty.
        layout: ``"nifti"``: a folder for each collection; ``"nnunet"``; ``"decathlon"``; or ``"bids"``.
        images: Image collections, in the order of channels. Where ``images`` and ``labels`` are None, all are taken but computed ones; as
            soon as one is given, only what is named, except that nnunet and decathlon take the labels, or all images, by themselves.
        labels: Label collections, likewise.
        names: What collections are called in the folder, by collection.
        workers: Threads; None takes the cores that this process may use. Each holds about twice the bytes of a volume.
        config: Access; None takes the process's defaults.
        progress: True shows a progress bar on stderr; a callable gets the number done and the number in all.

    Returns:
        What was written, what failed and why, and the command that makes a store of it again.

    Raises:
        ConfigError: An argument is wrong, ``out`` is not empty, or the store's collections do not make such a folder.
        KeyNotFoundError: No such collection.
        ExportError: The folder cannot be written, or no volume could be read; nothing is left.
        StoreNotFoundError, NotAStoreError, StoreVersionError: The store cannot be opened.
    """
    started = time.monotonic()
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r} is not one of {', '.join(LAYOUTS)}")
    threads = available_cores() if workers is None else as_whole(workers, "workers", minimum=1)
    store = uri if isinstance(uri, RadiObject) else RadiObject(uri, config=config)
    target = check_target(out, store.uri)
    selection = select(store, images, labels, names, label_by_itself=LAYOUTS[layout].label_by_itself)
    made = LAYOUTS[layout](selection, target.name)
    report = ExportReport(store.uri, str(target), layout)
    try:
        with whole_folder(target) as folder:
            _write(made, folder, threads, report, progress)
    finally:
        selection.reader.close()
        if not isinstance(uri, RadiObject):
            store.close()
    report.seconds = time.monotonic() - started
    return report


def _write(
    layout: Layout, folder: Path, threads: int, report: ExportReport, progress: bool | Callable[[int, int], object]
) -> None:
    planned = layout.units()
    check_paths([file.path for unit in planned for file in unit.files])
    with _shown(progress, layout, len(planned)) as show:
        done, failed = write_units(layout.selection, planned, folder, workers=threads, show=show)
    layout.failed += failed
    if not done:
        raise ExportError(f"{report.uri}: nothing could be exported{_why(layout)}")
    try:
        texts = layout.sidecars(done)
        tables = layout.tables(done)
        texts |= {table.path: table.text() for table in tables}
        check_paths([*texts, *(file.path for unit in done for file in unit.files)])
        for path, text in texts.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ExportError(f"{report.out}: could not be written: {error.strerror or error}") from error
    people = next((table for table in tables if table.path == PARTICIPANTS), None)
    if people is not None:
        layout.notes += people.differences(folder / PARTICIPANTS)
    if layout.renamed:
        one, name = next(iter(layout.renamed.items()))
        layout.notes.append(
            f"{len(layout.renamed)} subjects have other names there, such as {one!r} {name!r}; {PARTICIPANTS} says whose they are"
        )
    report.subjects = len({unit.subject for unit in done})
    report.volumes = sum(len(unit.files) for unit in done)
    report.files = report.volumes + len(texts)
    report.failed = sorted(layout.failed, key=lambda failure: (failure.subject, failure.collection))
    report.renamed = layout.renamed
    report.notes = list(dict.fromkeys(layout.notes))
    report.command = shlex.join(layout.command(report.out, done, tables))


def _why(layout: Layout) -> str:
    if not layout.failed:
        return ": the collections hold no volume of these subjects"
    more = len(layout.failed) - _SHOWN
    return "".join(f"\n  {failure}" for failure in layout.failed[:_SHOWN]) + (
        f"\n  and {more} more" if more > 0 else ""
    )


@contextmanager
def _shown(
    progress: bool | Callable[[int, int], object], layout: Layout, total: int
) -> Iterator[Callable[[int, int], object]]:
    if callable(progress):
        yield progress
        return
    with Bar("export", total, layout.counted, shown=progress and sys.stderr.isatty()) as bar:
        yield lambda done, total: bar.update(done)
