"""Volumes that are in no store yet into one: as an ingest takes files, with its checks, statistics, index and commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeGuard

from radioloader._checks import as_whole
from radioloader.config import available_cores
from radioloader.container.new_volume import NewVolume
from radioloader.errors import ConfigError, IngestError
from radioloader.geometry import GRID_TOLERANCE_MM
from radioloader.ingestion.array import ArraySource
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.discover import is_label_name
from radioloader.ingestion.job import Job
from radioloader.ingestion.report import IngestReport
from radioloader.ingestion.slots import make_slot
from radioloader.storage.store import Store

__all__ = ["NewVolumes", "are_volumes", "as_kinds", "put_volumes"]

NewVolumes = Iterable[NewVolume] | Mapping[str, NewVolume]


def are_volumes(source: Mapping[str, Any]) -> TypeGuard[Mapping[str, NewVolumes]]:
    """Whether what goes into collections are volumes, and not files."""
    parts = (value.values() if isinstance(value, Mapping) else value for value in source.values())
    return any(isinstance(part, NewVolume) for each in parts if isinstance(each, Iterable) for part in each)


def as_kinds(names: Iterable[str], labels: Sequence[str] | None) -> dict[str, str]:
    """Which collections hold labels: those that are named, or whose names say it."""
    return {name: "label" if (is_label_name(name) if labels is None else name in labels) else "image" for name in names}


def put_volumes(
    store: Store,
    collections: Mapping[str, NewVolumes],
    kinds: Mapping[str, str],
    *,
    workers: int | None,
    executor: Executor | None,
    orientation: str | None = None,
) -> IngestReport:
    """Write volumes into a store.

    Args:
        store: The store.
        collections: The volumes by collection; in a mapping by subject.
        kinds: ``"image"`` or ``"label"`` by collection.
        workers: Of arrays threads, else processes; None takes the cores that this process may use.
        executor: Runs the subjects instead.
        orientation: Axis codes that voxels are turned to.

    Returns:
        What came in.

    Raises:
        ConfigError: A volume has no subject, or two have the same place.
        IngestError: Some could not be written; the others are in the store.
        StoreLockedError, StoreWriteError: The store cannot be written.
    """
    cohort = _cohort(collections)
    count = available_cores() if workers is None else as_whole(workers, "workers", minimum=1)
    report = IngestReport(store.uri)
    with ExitStack() as stack:
        sources = [source for slots in cohort.sources.values() for source in slots.values()]
        if executor is None and count > 1 and all(isinstance(source, ArraySource) for source in sources):
            executor = stack.enter_context(ThreadPoolExecutor(count))  # arrays need not go to other processes
        transaction = stack.enter_context(store.write())
        job = Job(store, transaction, cohort, kinds, orientation, GRID_TOLERANCE_MM, store.config)
        job.load_metadata(None, report)
        job.run(report, lambda _: None, strict=False, workers=count, executor=executor, interval=10.0)
        report.version = transaction.commits.version
    report.items.sort(key=lambda item: item.subject)
    if not report.ok:
        error = IngestError(f"not all volumes could be written: {report}")
        error.report = report
        raise error
    return report


def _cohort(collections: Mapping[str, NewVolumes]) -> Cohort:
    sources: dict[str, dict[str, Any]] = {}
    for name, volumes in collections.items():
        pairs = volumes.items() if isinstance(volumes, Mapping) else ((None, volume) for volume in volumes)
        for given, volume in pairs:
            if not isinstance(volume, NewVolume):
                raise ConfigError(
                    f"collection {name!r} is given a {type(volume).__name__}; give volumes of Volume.from_numpy, from_nifti or from_dicom. "
                    "Volumes that are in a store already: RadiObject.from_volume_collections, or append"
                )
            subject = volume.subject if given is None else given
            if not subject or "\0" in subject:
                raise ConfigError(
                    f"{volume!r} for collection {name!r} has no subject; say it: Volume.from_numpy(..., subject='sub-01')"
                )
            slots = sources.setdefault(subject, {})
            slot = make_slot(name, volume.suffix)
            if slot in slots:
                raise ConfigError(
                    f"subject {subject!r} has two volumes in collection {name!r}; tell them apart: Volume.from_numpy(..., suffix='2')"
                )
            slots[slot] = volume.source
    names = {
        subject: {slot: source.name for slot, source in slots.items()} for subject, slots in sorted(sources.items())
    }
    return Cohort(
        files=names, sources={subject: sources[subject] for subject in names}, collections={n: n for n in collections}
    )
