"""``radioloader.ingest``: a cohort of files into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from radioloader.config import StorageConfig, available_cores, get_config
from radioloader.errors import ConfigError
from radioloader.formats.dicom.volumes import Policy
from radioloader.formats.orientation import check_orientation
from radioloader.geometry import GRID_TOLERANCE_MM
from radioloader.ingestion.classes import ClassNames, read_all_classes
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.dicom_source import DicomOptions, DicomSource
from radioloader.ingestion.dicom_subject import SubjectRule
from radioloader.ingestion.discover import Source, discover, is_label_name
from radioloader.ingestion.identity import Pseudonyms, warn_of_tags
from radioloader.ingestion.job import Job
from radioloader.ingestion.metadata import MetadataTable, load_metadata, read_table
from radioloader.ingestion.report import IngestItem, IngestReport
from radioloader.ingestion.splits import find_splits
from radioloader.ingestion.stored import read_sources
from radioloader.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ingest"]


def ingest(
    uri: str | os.PathLike[str],
    images: Mapping[str, Source],
    *,
    labels: Sequence[str] | None = None,
    obs_meta: pd.DataFrame | str | os.PathLike[str] | MetadataTable | None = None,
    classes: Mapping[str, ClassNames] | None = None,
    splits: Mapping[str, str | os.PathLike[str]] | None = None,
    orientation: str | None = None,
    subject_regex: str | None = None,
    allow_missing: bool = False,
    grid_tolerance_mm: float = GRID_TOLERANCE_MM,
    subject: str | os.PathLike[str] | Mapping[str, str] | None = None,
    on_tilt: str = "keep",
    on_irregular: str = "error",
    slice_tolerance_mm: float = 0.1,
    suv: str | None = None,
    pseudonymize: str | os.PathLike[str] | None = None,
    keep_tags: Sequence[str] = (),
    strict: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | Callable[[IngestItem, int, int], None] = False,
    commit_interval_s: float = 10.0,
    config: StorageConfig | None = None,
) -> IngestReport:
    """Bring NIfTI and DICOM files into a store; creates the store where there is none.

    NIfTI files are matched across collections by file name, DICOM files by patient. A subject becomes visible whole or not at all. The
    same call continues an ingest that was stopped: what is there already, by the SHA-256 of its source file, is skipped; a source that
    changed replaces its volume. A file that cannot be used costs its subject, not the others.

    Args:
        uri: Local path or ``s3://bucket/prefix`` of the store.
        images: Source of each collection (image or label): a glob, a folder, a list of paths, a :class:`~radioloader.DicomSource`, or a
            mapping from subject id to any of these. A folder without NIfTI files is one of DICOM files, at any depth and under any name.
            ``#2`` after a path, a folder or a glob takes the third volume of 4D NIfTI files.
        labels: Collections that hold labels, whose foreground is indexed and whose grid is checked against the images'. None
            goes by their names (``seg``, ``label``, ``mask``, ...).
        obs_meta: Subjects' columns: a DataFrame, or the path of a .csv or .tsv file, with the subject id in ``obs_subject_id``,
            ``participant_id``, ``subject_id`` or ``subject``.
        classes: Names of a label collection's classes, by collection: class by name, such as ``{"seg": {"liver": 1, "tumour": 2}}`` (a list
            of classes for a region of several), or the path of a ``dataset.json``. They are kept for people and exports; voxels stay
            numbers.
        splits: Folder, or glob, whose files make a subject part of a split, such as ``{"train": "imagesTr", "test": "imagesTs"}``: the
            subjects' column ``split``.
        orientation: Axis codes such as ``"RAS"`` that every volume's voxels are turned to (flips and permutations: nothing is
            resampled); exports turn them back. None stores what the file holds.
        subject_regex: Finds the subject id in a file's path; its group ``subject``, its first group, or all that it matches.
        allow_missing: Also ingest subjects that have no file in some of the collections.
        grid_tolerance_mm: How far apart, in mm, a voxel of a label and of its image may lie.
        subject: Of DICOM files: ``"PatientID"``; ``"folder:N"``, the N-th folder below the root; or a mapping from PatientID to subject id,
            also as a .csv or .tsv file. None makes ids that tell nothing, of study UIDs.
        on_tilt: Of DICOM stacks with a tilted gantry, whose slices are displaced within their planes: ``"keep"`` the true sheared affine,
            ``"resample"`` to a rectangular grid, or ``"error"``.
        on_irregular: Of DICOM stacks with missing, doubled or unevenly spaced slices: ``"error"``; ``"resample"`` linearly; ``"split"``
            into regular parts; ``"keep"`` the slices as if they were evenly spaced (the catalog says that they are not).
        slice_tolerance_mm: How far, in mm, a slice may lie off a regular grid; a tenth of the slice distance where that is less.
        suv: ``"bw"`` stores PET as standardized uptake values by body weight (PS3.3 C.8.9), in g/ml.
        pseudonymize: Key file. Subject ids (but for those of a mapping) and UIDs of DICOM files become keyed hashes (HMAC-SHA256).
        keep_tags: Keywords of DICOM attributes to keep besides the technical ones; identifying ones are warned of.
        strict: Stop at the first failure.
        workers: Processes; None takes the cores that this process may use.
        executor: Runs the subjects instead of processes of our own (``concurrent.futures``, dask's ``get_executor()``).
        progress: True shows a progress bar on stderr; a callable gets each item, the number done and the number in all.
        commit_interval_s: How often, in seconds, finished subjects become visible (and safe from a kill).
        config: Tiles, compression and access; None takes the process's defaults.

    Returns:
        What was ingested, skipped and failed, and why.

    Raises:
        ConfigError: An argument is wrong, or a source matches nothing.
        CatalogError: ``obs_meta`` cannot be used.
        IngestError: With ``strict``: the first failure; ``.report`` says what was done before it.
        NotAStoreError, StoreVersionError, StoreLockedError, StoreWriteError: The target cannot be used.
    """
    started = time.monotonic()
    config = get_config() if config is None else config
    if orientation is not None:
        orientation = check_orientation(orientation)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1")
    if not grid_tolerance_mm >= 0:
        raise ConfigError(f"grid_tolerance_mm={grid_tolerance_mm} must not be negative")
    if not commit_interval_s >= 0:
        raise ConfigError(f"commit_interval_s={commit_interval_s} must not be negative")
    kinds = _kinds(images, labels)
    named = read_all_classes(classes, [name for name, kind in kinds.items() if kind == "label"])
    kept = tuple([keep_tags] if isinstance(keep_tags, str) else keep_tags)
    dicom = DicomOptions(
        Policy(on_tilt, on_irregular, slice_tolerance_mm, suv or "").check(),
        SubjectRule.parse(subject, Pseudonyms.from_file(pseudonymize)),
        kept,
    )
    # All that can be wrong with the arguments is found before the store is made: a mistyped name should not leave one behind.
    existing = Store.find(uri, config=config)
    sources = None if existing is None else read_sources(existing, existing.commits())
    cohort = discover(
        images,
        labels=[name for name, kind in kinds.items() if kind == "label"],
        subject_regex=subject_regex,
        allow_missing=allow_missing,
        dicom=dicom,
        stored=sources,
        workers=workers or config.write.max_workers,
        executor=executor,
    )
    report = IngestReport(str(uri), notes=list(cohort.notes))
    report.notes += _check_dicom_options(cohort, list(kinds), subject, pseudonymize, kept)
    # One source may give several collections: echoes, magnitude and phase.
    named = {name: named[asked] for name, asked in cohort.collections.items() if asked in named}
    kinds = {name: kinds[asked] for name, asked in cohort.collections.items()}
    split_of = None if splits is None else find_splits(splits, cohort, report)
    table = None if obs_meta is None else read_table(obs_meta)
    if table is not None and existing is None and not table.optional:
        load_metadata(table, {}, list(cohort.files))
    if cohort.rule:
        report.notes.append(f"subject ids come from: {cohort.rule}")
    if labels is None and "label" in kinds.values():
        report.notes.append(f"labels, going by their names: {', '.join(n for n, k in kinds.items() if k == 'label')}")
    store = Store.open_or_create(uri, config=config)
    report.uri = store.uri
    items = len(cohort.files) + len(cohort.unusable)
    with store.write() as transaction, _Progress(progress, items) as show:
        job = Job(store, transaction, cohort, kinds, orientation, grid_tolerance_mm, config, named)
        job.load_metadata(table, report, split_of)
        try:
            job.run(
                report,
                show,
                strict=strict,
                workers=_workers(workers, config, cohort),
                executor=executor,
                interval=commit_interval_s,
            )
        finally:
            report.items.sort(key=lambda item: item.subject)
            report.seconds = time.monotonic() - started
            report.version = transaction.commits.version
    return report


def _workers(workers: int | None, config: StorageConfig, cohort: Cohort) -> int:
    wanted = workers or config.write.max_workers or available_cores()
    return max(1, min(wanted, len(cohort.files) - len(cohort.failures)))


def _check_dicom_options(
    cohort: Cohort, names: Sequence[str], subject: Any, pseudonymize: Any, keep_tags: Sequence[str]
) -> list[str]:
    """What a user must know of options for DICOM files.

    Raises:
        ConfigError: There are no such files: an option that is not heeded may be one that somebody's privacy hangs on.
    """
    if not cohort.dicom:
        for option, value in (("subject", subject), ("pseudonymize", pseudonymize), ("keep_tags", keep_tags or None)):
            if value is not None:
                raise ConfigError(
                    f"{option} (--{option.replace('_', '-').removesuffix('s')}) is for DICOM files, and none of the collections "
                    f"{', '.join(map(repr, names))} is of such files"
                )
        return []
    notes = [note] if (note := warn_of_tags(keep_tags, stacklevel=4)) else []
    others = sorted(set(names) - cohort.dicom)
    if pseudonymize is not None and others:
        notes.append(
            f"pseudonymize does not change the collections {', '.join(others)}: their subject ids and the paths of their NIfTI files are "
            "stored as they are"
        )
    return notes


def _kinds(images: Mapping[str, Source], labels: Sequence[str] | None) -> dict[str, str]:
    if isinstance(labels, str):
        labels = [labels]
    unknown = sorted(set(labels or ()) - set(images))
    if unknown:
        raise ConfigError(f"labels names {unknown}, which are not among the collections {sorted(images)}")
    return {
        name: "label" if _holds_labels(name, source, labels) else "image"
        for name, source in (images.items() if isinstance(images, Mapping) else ())
    }


def _holds_labels(name: str, source: Source, labels: Sequence[str] | None) -> bool:
    if labels is not None:
        return name in labels
    return is_label_name(name) or (isinstance(source, DicomSource) and source.structures is not None)


class _Progress:
    """Tells the user, or the caller, how far it is."""

    def __init__(self, progress: bool | Callable[[IngestItem, int, int], None], total: int) -> None:
        self._callback = progress if callable(progress) else None
        self._bar: Any = None
        if progress is True:
            from radioloader.ingestion.progress import ProgressBar

            self._bar = ProgressBar(total)
        self._done, self._total = 0, total

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, item: IngestItem) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.advance(item)
        if self._callback is not None:
            self._callback(item, self._done, self._total)
