"""One ingest into one open store: what is there already, what is to do, and the commits that make finished subjects exist."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from secrets import token_hex
from typing import Any

from radioloader.config import StorageConfig
from radioloader.errors import CatalogError, ConfigError, IngestError, StoreWriteError
from radioloader.ingestion.cohort import Cohort
from radioloader.ingestion.committing import commit_in_turn
from radioloader.ingestion.metadata import Metadata, MetadataTable, load_metadata
from radioloader.ingestion.pool import run
from radioloader.ingestion.report import IngestItem, IngestReport
from radioloader.ingestion.slots import collection_of, make_slot, obs_id_of, shown
from radioloader.ingestion.splits import add_split
from radioloader.ingestion.stored import read_sources
from radioloader.ingestion.subject import (
    Grid,
    SubjectResult,
    SubjectTask,
    Target,
    discard,
    ingest_subject,
    recipe_of,
)
from radioloader.storage.catalog import (
    CLASSES,
    COLLECTION_TABLES,
    CollectionInfo,
    columns_of,
    origin_columns,
    read_collections,
    read_index,
)
from radioloader.storage.problems import FAILED, Problem, change_problems, read_problems
from radioloader.storage.snapshot import USER_PREFIX
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import newest
from radioloader.storage.uri import join

__all__ = ["Job"]

_DICOM_FAILED = "DICOM files of this subject could not be used; the ingest's report said which and why (a store keeps no paths of them)"


class Job:
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
        classes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._classes = classes or {}
        self._items: Sequence[IngestItem] = ()
        self._store, self._transaction, self._cohort, self._kinds = store, transaction, cohort, kinds
        self._orientation, self._tolerance_mm, self._config = orientation, tolerance_mm, config
        self._recipe = recipe_of(orientation, config)
        self._metadata = Metadata([], {})
        self._existing_metadata: dict[str, dict[str, Any]] = {}
        self._finished: list[SubjectResult] = []
        self._made: set[str] = set()
        self._collections = self._open_collections()
        self._sources = read_sources(store, transaction.commits)
        for subject, reason in self._sources.taken(cohort).items():
            cohort.failures.setdefault(subject, reason)
        self._stored = self._read_stored()

    def _open_collections(self) -> dict[str, tuple[CollectionInfo, bool]]:
        """Each collection and whether it is new; a new one is made with its first volumes, and exists once its row is committed."""
        existing = read_collections(self._store, self._transaction.commits)
        collections = {}
        for name, kind in self._kinds.items():
            info = existing.get(name)
            if info is not None and info.computed:
                raise ConfigError(
                    f"collection {name!r} of {self._store.uri} holds volumes that were computed from others; use another name"
                )
            if info is not None and info.kind != kind:
                raise ConfigError(
                    f"collection {name!r} of {self._store.uri} holds {info.kind}s, but now it is to hold {kind}s; "
                    f"use another name, or set labels"
                )
            collections[name] = (
                (info, False) if info is not None else (CollectionInfo(token_hex(8), name, kind, {}), True)
            )
        return collections

    def _read_stored(self) -> dict[str, dict[str, Grid]]:
        """Grids of the volumes in collections that this ingest does not touch, by subject and collection. Not of what was computed: it may
        be of an image that is replaced now."""
        stored: dict[str, dict[str, Grid]] = {}
        for name, info in read_collections(self._store, self._transaction.commits).items():
            if name not in self._collections and not info.computed:
                index = read_index(self._store, info, self._transaction.commits)
                for place, subject in enumerate(index.subject_ids.tolist()):
                    if subject in self._cohort.files:
                        ref = index.ref(place)
                        source = f"the stored volume {ref.obs_id!r}"
                        grid = Grid(info.kind, source, ref.shape, index.affines[place], name)
                        stored.setdefault(subject, {})[make_slot(name, ref.obs_id)] = grid
        return stored

    def load_metadata(
        self, source: MetadataTable | None, report: IngestReport, splits: Mapping[str, str] | None = None
    ) -> None:
        table = self._store.table("obs_meta")
        rows = newest(table.read(), self._transaction.commits, "obs_subject_id")
        columns = {name: column for name, column in table.columns().items() if name.startswith(USER_PREFIX)}
        self._existing_metadata = {
            subject: {name: _scalar(rows[name][place]) for name in columns}
            for place, subject in enumerate(rows["obs_subject_id"].tolist())
        }
        if (
            self._existing_metadata
            and self._cohort.files
            and not self._existing_metadata.keys() & self._cohort.files.keys()
        ):
            report.notes.append(
                f"all subjects are new: the store has {_some(self._existing_metadata)}, these are {_some(self._cohort.files)}; if they "
                "should be the same ones, give subject_regex (--subject-regex), or mappings from subject id to path"
            )
        if source is not None:
            try:
                self._metadata, notes = load_metadata(source, columns, list(self._cohort.files))
            except CatalogError as error:
                if not source.optional:
                    raise
                notes = [f"the subjects' columns were left out: {error}"]
            report.notes += notes
        if splits:
            add_split(self._metadata, splits, columns)

    def _tasks(self) -> Iterable[SubjectTask]:
        targets = {
            name: Target(self._store.collection_uri(info.id), info.kind, name)
            for name, (info, _) in self._collections.items()
        }
        for subject, sources in self._cohort.sources.items():
            if subject not in self._cohort.failures:
                known = {slot: k for slot, k in self._sources.volumes.get(subject, {}).items() if slot in sources}
                yield SubjectTask(
                    subject,
                    sources,
                    {slot: targets[collection_of(slot)] for slot in sources},
                    known,
                    self._stored.get(subject, {}),
                    self._orientation,
                    self._tolerance_mm,
                    self._config,
                )

    def run(
        self,
        report: IngestReport,
        show: Callable[[IngestItem], None],
        *,
        strict: bool,
        workers: int,
        executor: Executor | None,
        interval: float,
    ) -> None:
        self._items = report.items
        for subject, reason in self._cohort.failures.items():
            self._note(report, show, IngestItem(subject, "failed", reason, self._files(subject)), strict)
        for subject, reason in self._cohort.unusable:
            self._note(report, show, IngestItem(subject, "failed", reason), strict)
        results = run(ingest_subject, self._tasks(), workers=workers, executor=executor, lost=_lost)

        def take(result: SubjectResult) -> None:
            self._refuse_twin(result)
            if result.failure is None:
                self._finished.append(result)
            elif result.fatal:
                raise StoreWriteError(result.failure)
            self._note(report, show, self._item(result), strict)

        commit_in_turn(results, take, self._commit, lambda: self._finished, interval)

    def _refuse_twin(self, result: SubjectResult) -> None:
        """Fail a subject that is another one of the store under a new id, or another one under an old id; what it wrote is removed."""
        hashes = {name: row["source_hash"] for name, row in result.rows.items()}
        reason = self._sources.other_patient(result.subject, hashes, self._cohort)
        twin = self._sources.twin(result.subject, hashes)
        if twin is not None and reason is None:
            reason, note = self._sources.same_patient(result.subject, twin, hashes, self._cohort)
            result.notes += [] if note is None else [note]
        if reason is not None:
            uris = [
                join(self._store.collection_uri(self._collections[collection_of(slot)][0].id), row["uri"])
                for slot, row in result.rows.items()
            ]
            discard(result, reason, uris, self._config)

    def _item(self, result: SubjectResult) -> IngestItem:
        status = "failed" if result.failure is not None else "ingested" if result.rows else "skipped"
        return IngestItem(
            result.subject,
            status,
            result.failure or "",
            self._files(result.subject),
            tuple(result.notes),
            result.voxel_bytes,
        )

    def _files(self, subject: str) -> dict[str, str]:
        return {shown(slot): name for slot, name in self._cohort.files[subject].items()}

    def _note(self, report: IngestReport, show: Callable[[IngestItem], None], item: IngestItem, strict: bool) -> None:
        report.items.append(item)
        show(item)
        if strict and item.status == "failed":
            error = IngestError(f"stopped at the first failure (strict): subject {item.subject!r}: {item.reason}")
            error.report = report
            raise error

    def _commit(self, last: bool) -> None:
        """Make the finished subjects exist, and with the last ones what could not be ingested. Where this fails or is interrupted, none of
        them does, and it can be tried again."""
        finished = self._finished
        made: list[str] = []
        try:
            volumes = self._append_volumes(finished, made)
            metadata = self._append_metadata([result.subject for result in finished])
            if last:
                self._append_classes(made)
                self._append_problems()
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
            results = [(result, slot) for result in finished for slot in result.rows if collection_of(slot) == name]
            rows = [result.rows[slot] for result, slot in results]
            if not new:
                self._remove(info, finished)
            if not rows:
                continue
            volumes += len(rows)
            if new and name not in self._made:
                self._store.create_collection(info.id, COLLECTION_TABLES)
                self._made.add(name)
            table = self._store.table("c", info.id, "obs")
            table.add_columns(origin_columns(rows))
            self._transaction.append(table, columns_of(rows))
            foreground = [row for result, slot in results for row in result.foreground.get(slot, [])]
            if foreground:
                self._transaction.append(self._store.table("c", info.id, "foreground"), columns_of(foreground))
            if new:
                self._append_collection(info, json.loads(self._recipe))
                made.append(name)
        return volumes

    def _is_dicom(self, item: IngestItem) -> bool:
        """Whether a failure may be told with paths of DICOM files, which tell who a patient is."""
        slots = self._cohort.files.get(item.subject, {})
        names = {self._cohort.collections.get(collection_of(slot), collection_of(slot)) for slot in slots}
        return bool(self._cohort.dicom) and (not names or bool(names & self._cohort.dicom))

    def _append_collection(self, info: CollectionInfo, recipe: Mapping[str, Any]) -> None:
        named = {CLASSES: self._classes[info.name]} if info.name in self._classes else {}
        text = json.dumps({**recipe, **named}, sort_keys=True)
        row = {"collection_id": [info.id], "name": [info.name], "kind": [info.kind], "recipe": [text]}
        self._transaction.append(self._store.table("collections"), row)

    def _append_classes(self, made: Sequence[str]) -> None:
        """Append rows of collections that were there already, and whose classes are named otherwise now."""
        for name, (info, new) in self._collections.items():
            if (
                name in self._classes
                and not new
                and name not in made
                and info.recipe.get(CLASSES) != self._classes[name]
            ):
                self._append_collection(info, info.recipe)

    def _append_problems(self) -> None:
        """Append what could not be ingested, and take back what earlier ingests could not and this one could."""
        found, solved = [], set()
        for item in self._items:
            if item.status != "failed":
                solved.add(item.subject)
            elif self._is_dicom(item):
                found.append(Problem(FAILED, item.subject, "", _DICOM_FAILED))
            else:
                found.append(Problem(FAILED, item.subject, "", item.reason))
        before = read_problems(self._store, self._transaction.commits)
        taken = {path for subject in solved for path in self._cohort.files.get(subject, {}).values()}
        gone = [
            problem
            for problem in before
            if (problem.subject in solved if problem.status == FAILED else problem.source in taken)
        ]
        change_problems(self._store, self._transaction, found, gone)

    def _remove(self, info: CollectionInfo, finished: Sequence[SubjectResult]) -> None:
        """Append tombstones of volumes whose series is stored under other names now."""
        gone = {
            obs_id_of(result.subject, slot)
            for result in finished
            for slot in self._cohort.gone.get(result.subject, ())
            if collection_of(slot) == info.name
        }
        if gone:
            table = self._store.table("c", info.id, "obs")
            rows = newest(table.read(), self._transaction.commits, "obs_id")
            places = [place for place, obs_id in enumerate(rows["obs_id"].tolist()) if obs_id in gone]
            old = {column: rows[column][places].tolist() for column in table.columns()}
            self._transaction.append(table, old | {"deleted": [True] * len(places)})

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
            f"{task.where}: the worker process died while it read these files (killed, or out of memory?); "
            "ingest with fewer workers, or leave the subject out"
        ),
    )


def _some(subjects: Iterable[str]) -> str:
    names = sorted(subjects)
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "dtype", None) != "datetime64[ns]" else value


def _same(old: Any, new: Any) -> bool:
    missing = [value is None or value != value for value in (old, new)]
    return all(missing) or (not any(missing) and bool(old == new))
