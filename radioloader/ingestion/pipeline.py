"""``radioloader.ingest``: a cohort of files into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from radioloader.config import StorageConfig, available_cores, get_config
from radioloader.errors import ConfigError, IngestError, StoreWriteError
from radioloader.formats.orientation import check_orientation
from radioloader.ingestion.discover import Cohort, Source, discover, is_label_name
from radioloader.ingestion.metadata import Metadata, MetadataTable, load_metadata, read_table
from radioloader.ingestion.pool import run
from radioloader.ingestion.report import IngestItem, IngestReport
from radioloader.ingestion.subject import Grid, Known, SubjectResult, SubjectTask, Target, ingest_subject, recipe_of
from radioloader.storage.catalog import COLLECTION_TABLES, CollectionInfo, read_collections, read_index
from radioloader.storage.snapshot import USER_PREFIX
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import newest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ingest"]

_ROWS_PER_COMMIT = 20_000


def ingest(
    uri: str | os.PathLike[str],
    images: Mapping[str, Source],
    *,
    labels: Sequence[str] | None = None,
    obs_meta: pd.DataFrame | str | os.PathLike[str] | None = None,
    orientation: str | None = None,
    subject_regex: str | None = None,
    allow_missing: bool = False,
    grid_tolerance_mm: float = 0.05,
    strict: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | Callable[[IngestItem, int, int], None] = False,
    commit_interval_s: float = 10.0,
    config: StorageConfig | None = None,
) -> IngestReport:
    """Bring NIfTI files into a store; creates the store where there is none.

    Subjects are matched across collections by file name. A subject becomes visible whole or not at all. The same call continues
    an ingest that was stopped: what is there already, by the SHA-256 of its source file, is skipped; a source that changed
    replaces its volume. A file that cannot be used costs its subject, not the others.

    Args:
        uri: Local path or ``s3://bucket/prefix`` of the store.
        images: Source of each collection (image or label): a glob, a folder, a list of paths, or a mapping from subject id
            to path.
        labels: Collections that hold labels, whose foreground is indexed and whose grid is checked against the images'. None
            goes by their names (``seg``, ``label``, ``mask``, ...).
        obs_meta: Subjects' columns: a DataFrame, or the path of a .csv or .tsv file, with the subject id in ``obs_subject_id``,
            ``participant_id``, ``subject_id`` or ``subject``.
        orientation: Axis codes such as ``"RAS"`` that every volume's voxels are turned to (flips and permutations: nothing is
            resampled); exports turn them back. None stores what the file holds.
        subject_regex: Finds the subject id in a file's path; its group ``subject``, its first group, or all that it matches.
        allow_missing: Also ingest subjects that have no file in some of the collections.
        grid_tolerance_mm: How far apart, in mm, a voxel of a label and of its image may lie.
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
    cohort = discover(images, subject_regex=subject_regex, allow_missing=allow_missing)
    kinds = _kinds(images, labels)
    # Before the store is made: a mistyped name should not leave one behind.
    table = None if obs_meta is None else read_table(obs_meta)
    report = IngestReport(str(uri), notes=list(cohort.notes))
    if cohort.rule:
        report.notes.append(f"subject ids come from: {cohort.rule}")
    if labels is None and "label" in kinds.values():
        report.notes.append(f"labels, going by their names: {', '.join(n for n, k in kinds.items() if k == 'label')}")
    store = Store.open_or_create(uri, config=config)
    report.uri = store.uri
    with store.write() as transaction, _Progress(progress, len(cohort.files)) as show:
        job = _Job(store, transaction, cohort, kinds, orientation, grid_tolerance_mm, config)
        job.load_metadata(table, report)
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


def _kinds(images: Mapping[str, Source], labels: Sequence[str] | None) -> dict[str, str]:
    if isinstance(labels, str):
        labels = [labels]
    unknown = sorted(set(labels or ()) - set(images))
    if unknown:
        raise ConfigError(f"labels names {unknown}, which are not among the collections {sorted(images)}")
    return {
        name: "label" if (is_label_name(name) if labels is None else name in labels) else "image" for name in images
    }


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


class _Job:
    """One ingest into one open store."""

    def __init__(
        self,
        store: Store,
        transaction: Transaction,
        cohort: Cohort,
        kinds: Mapping[str, str],
        orientation: str | None,
        tolerance_mm: float,
        config: StorageConfig,
    ) -> None:
        self._store, self._transaction, self._cohort, self._kinds = store, transaction, cohort, kinds
        self._orientation, self._tolerance_mm, self._config = orientation, tolerance_mm, config
        self._recipe = recipe_of(orientation, config)
        self._metadata = Metadata([], {})
        self._existing_metadata: dict[str, dict[str, Any]] = {}
        self._finished: list[SubjectResult] = []
        self._made: set[str] = set()
        self._collections = self._open_collections()
        self._known = self._read_known()
        self._stored = self._read_stored()

    def _open_collections(self) -> dict[str, tuple[CollectionInfo, bool]]:
        """Each collection and whether it is new; a new one is made with its first volumes, and exists once its row is committed."""
        existing = read_collections(self._store, self._transaction.commits)
        collections = {}
        for name, kind in self._kinds.items():
            info = existing.get(name)
            if info is not None and info.kind != kind:
                raise ConfigError(
                    f"collection {name!r} of {self._store.uri} holds {info.kind}s, but now it is to hold {kind}s; "
                    f"use another name, or set labels"
                )
            collections[name] = (
                (info, False) if info is not None else (CollectionInfo(token_hex(8), name, kind, {}), True)
            )
        return collections

    def _read_known(self) -> dict[str, dict[str, Known]]:
        known: dict[str, dict[str, Known]] = {}
        for name, (info, new) in self._collections.items():
            if not new:
                columns = ["obs_id", "obs_subject_id", "source_hash", "recipe"]
                rows = newest(self._store.table("c", info.id, "obs").read(columns), self._transaction.commits, "obs_id")
                for subject, source_hash, recipe in zip(
                    rows["obs_subject_id"], rows["source_hash"], rows["recipe"], strict=True
                ):
                    known.setdefault(subject, {})[name] = Known(source_hash, recipe)
        return known

    def _read_stored(self) -> dict[str, dict[str, Grid]]:
        """Grids of the volumes in collections that this ingest does not touch, by subject and collection."""
        stored: dict[str, dict[str, Grid]] = {}
        for name, info in read_collections(self._store, self._transaction.commits).items():
            if name not in self._collections:
                index = read_index(self._store, info, self._transaction.commits)
                for place, subject in enumerate(index.subject_ids.tolist()):
                    if subject in self._cohort.files:
                        ref = index.ref(place)
                        source = f"the stored volume {ref.obs_id!r}"
                        stored.setdefault(subject, {})[name] = Grid(info.kind, source, ref.shape, index.affines[place])
        return stored

    def load_metadata(self, source: MetadataTable | None, report: IngestReport) -> None:
        table = self._store.table("obs_meta")
        rows = newest(table.read(), self._transaction.commits, "obs_subject_id")
        columns = {name: column for name, column in table.columns().items() if name.startswith(USER_PREFIX)}
        self._existing_metadata = {
            subject: {name: _scalar(rows[name][place]) for name in columns}
            for place, subject in enumerate(rows["obs_subject_id"].tolist())
        }
        if self._existing_metadata and not self._existing_metadata.keys() & self._cohort.files.keys():
            report.notes.append(
                f"all subjects are new: the store has {_some(self._existing_metadata)}, these are {_some(self._cohort.files)}; if they "
                "should be the same ones, give subject_regex (--subject-regex), or mappings from subject id to path"
            )
        if source is not None:
            self._metadata, notes = load_metadata(source, columns, list(self._cohort.files))
            report.notes += notes

    def _tasks(self) -> Iterable[SubjectTask]:
        targets = {
            name: Target(self._store.collection_uri(info.id), info.kind)
            for name, (info, _) in self._collections.items()
        }
        for subject, files in self._cohort.files.items():
            if subject not in self._cohort.failures:
                known = self._known.get(subject, {})
                stored = self._stored.get(subject, {})
                yield SubjectTask(
                    subject, files, targets, known, stored, self._orientation, self._tolerance_mm, self._config
                )

    def run(
        self,
        report: IngestReport,
        show: _Progress,
        *,
        strict: bool,
        workers: int,
        executor: Executor | None,
        interval: float,
    ) -> None:
        for subject, reason in self._cohort.failures.items():
            self._note(report, show, IngestItem(subject, "failed", reason, self._cohort.files[subject]), strict)
        last = time.monotonic()
        results = run(ingest_subject, self._tasks(), workers=workers, executor=executor, lost=_lost)
        try:
            for result in results:
                if result.failure is None:
                    self._finished.append(result)
                elif result.fatal:
                    raise StoreWriteError(result.failure)
                item = self._item(result)
                self._note(report, show, item, strict)
                if time.monotonic() - last >= interval or len(self._finished) >= _ROWS_PER_COMMIT:
                    self._commit()
                    last = time.monotonic()
        except BaseException as error:
            # Also on Ctrl-C: whole subjects are worth keeping. An error of this commit must not hide the first one.
            results.close()  # type: ignore[attr-defined]
            kept = "what was finished before is kept"
            try:
                self._commit()
            except StoreWriteError:
                kept = (
                    f"{len(self._finished)} finished subjects could not be committed either and will be ingested again"
                )
            if isinstance(error, StoreWriteError):
                raise StoreWriteError(f"{error}; {kept}: make room, and run the same command again") from error
            raise
        self._commit()

    def _item(self, result: SubjectResult) -> IngestItem:
        status = "failed" if result.failure is not None else "ingested" if result.rows else "skipped"
        return IngestItem(
            result.subject,
            status,
            result.failure or "",
            self._cohort.files[result.subject],
            tuple(result.notes),
            result.voxel_bytes,
        )

    def _note(self, report: IngestReport, show: _Progress, item: IngestItem, strict: bool) -> None:
        report.items.append(item)
        show(item)
        if strict and item.status == "failed":
            error = IngestError(f"stopped at the first failure (strict): subject {item.subject!r}: {item.reason}")
            error.report = report
            raise error

    def _commit(self) -> None:
        """Make the finished subjects exist. Where this fails or is interrupted, none of them does, and it can be tried again."""
        finished = self._finished
        made: list[str] = []
        try:
            volumes = self._append_volumes(finished, made)
            metadata = self._append_metadata([result.subject for result in finished])
            if self._transaction.pending:
                columns = sorted({name.removeprefix(USER_PREFIX) for row in metadata.values() for name in row})
                changes = {"volumes": volumes, "obs_meta": len(metadata), "columns": columns}
                self._transaction.commit(f"ingest of {volumes} volumes", changes)
        except BaseException:
            # The commit made after a Ctrl-C or an error must not bring half of these rows to light.
            self._transaction.abandon()
            raise
        self._finished = []
        self._collections |= {name: (self._collections[name][0], False) for name in made}
        self._existing_metadata |= metadata

    def _append_volumes(self, finished: Sequence[SubjectResult], made: list[str]) -> int:
        """Append the volumes' rows and those of new collections, whose names go into ``made``; returns the number of volumes."""
        volumes = 0
        for name, (info, new) in self._collections.items():
            rows = [result.rows[name] for result in finished if name in result.rows]
            if not rows:
                continue
            volumes += len(rows)
            if new and name not in self._made:
                self._store.create_collection(info.id, COLLECTION_TABLES)
                self._made.add(name)
            self._transaction.append(self._store.table("c", info.id, "obs"), _columns(rows))
            foreground = [row for result in finished for row in result.foreground.get(name, [])]
            if foreground:
                self._transaction.append(self._store.table("c", info.id, "foreground"), _columns(foreground))
            if new:
                row = {"collection_id": [info.id], "name": [name], "kind": [info.kind], "recipe": [self._recipe]}
                self._transaction.append(self._store.table("collections"), row)
                made.append(name)
        return volumes

    def _append_metadata(self, subjects: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Append the subjects' rows that differ from the store's; returns them."""
        rows: dict[str, dict[str, Any]] = {}
        for subject in subjects:
            old = self._existing_metadata.get(subject)
            new = (old or {}) | self._metadata.rows.get(subject, {})
            if old is None or any(not _same(old.get(name), value) for name, value in new.items()):
                rows[subject] = new
        if rows:
            names = dict.fromkeys(name for row in rows.values() for name in row)
            columns = {name: [row.get(name) for row in rows.values()] for name in names}
            table = self._store.table("obs_meta")
            # Columns come with the first rows that use them: an ingest that brings no subject brings no column.
            table.add_columns([column for column in self._metadata.columns if column.name in names])
            self._transaction.append(table, {"obs_subject_id": list(rows), **columns})
        return rows


def _lost(task: SubjectTask) -> SubjectResult:
    return SubjectResult(
        task.subject,
        failure=(
            f"{', '.join(task.files.values())}: the worker process died while it read these files (killed, or out of memory?); "
            "ingest with fewer workers, or leave the subject out"
        ),
    )


def _some(subjects: Iterable[str]) -> str:
    names = sorted(subjects)
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "dtype", None) != "datetime64[ns]" else value


def _same(old: Any, new: Any) -> bool:
    missing = [value is None or value != value for value in (old, new)]
    return all(missing) or (not any(missing) and bool(old == new))
