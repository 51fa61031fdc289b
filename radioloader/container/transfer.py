"""Volumes from one store into another: whole subjects at a time, with what the catalog knows of them.

Worker processes write voxels (:mod:`radioloader.container.moving`); the process that called commits rows, as an ingest does.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import numpy as np

from radioloader.container.collection import VolumeCollection
from radioloader.container.moving import Move, MoveResult, MoveTask, lost, move_subject, writing
from radioloader.container.recast import Recast
from radioloader.errors import ConfigError, StoreWriteError
from radioloader.ingestion.committing import commit_in_turn
from radioloader.ingestion.derived import collection_id
from radioloader.ingestion.pool import run
from radioloader.ingestion.slots import moved_id
from radioloader.ingestion.subject import recipe_of
from radioloader.storage.catalog import (
    CLASSES,
    COLLECTION_TABLES,
    CollectionInfo,
    columns_of,
)
from radioloader.storage.snapshot import USER_PREFIX, Snapshot
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import Column, one_of

__all__ = ["TransferReport", "transfer"]

_COMMIT_EVERY_S = 10.0


@dataclass(slots=True)
class TransferReport:
    """What a transfer did.

    Attributes:
        uri: The store that was written.
        subjects: How many came in, or came anew.
        volumes: How many volumes were written.
        skipped: Subjects of which everything was there already.
        failed: Reason by subject, of those that were left as they were.
        version: Version of the store afterwards.
        seconds: How long it took.
    """

    uri: str
    subjects: int = 0
    volumes: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    version: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    def __str__(self) -> str:
        lines = [
            f"{self.volumes} volumes of {self.subjects} subjects written, {self.skipped} subjects skipped (there already), "
            f"{len(self.failed)} failed in {self.seconds:.1f} s -> {self.uri}"
        ]
        return "\n".join([*lines, *(f"  failed {subject!r}: {reason}" for subject, reason in self.failed.items())])


def transfer(
    sources: Mapping[str, VolumeCollection],
    target: Store,
    *,
    subjects: Sequence[str],
    snapshots: Sequence[Snapshot],
    recast: Recast,
    replace: bool,
    workers: int,
    executor: Executor | None,
    message: str | None,
    what: str,
    show: Callable[[int, int], object],
    commit_interval_s: float = _COMMIT_EVERY_S,
) -> TransferReport:
    """Write volumes of other stores into one.

    Args:
        sources: The volumes by the name of the collection that they go to.
        target: The store, which exists.
        subjects: Who comes in.
        snapshots: Where their own columns come from; a later one's values go before.
        recast: What is done to the volumes.
        replace: Whether what is there with other content is replaced; else that is an error, and nothing is written.
        workers: Processes; with 1 all runs in this one.
        executor: Runs the subjects instead of processes of our own.
        message: Of the commits; None: a text that counts.
        what: What that text says was done.
        show: Gets the number of subjects done and that of all.
        commit_interval_s: How often finished subjects become visible.

    Raises:
        ConfigError: A collection there has another kind; or a subject is there with other content, without ``replace``.
        CatalogError: A column there holds values of another kind.
        StoreLockedError, StoreWriteError: The target cannot be written.
    """
    started = time.monotonic()
    report = TransferReport(target.uri)
    with target.write() as transaction:
        job = _Transfer(sources, target, transaction, recast, message, what)
        job.plan(subjects, snapshots, replace=replace)
        report.skipped = job.skipped
        job.run(report, workers, executor, show, commit_interval_s)
        report.version = transaction.commits.version
    report.failed = dict(sorted(report.failed.items()))
    report.seconds = time.monotonic() - started
    return report


class _Transfer:
    """One transfer into one open store."""

    def __init__(
        self,
        sources: Mapping[str, VolumeCollection],
        target: Store,
        transaction: Transaction,
        recast: Recast,
        message: str | None,
        what: str,
    ) -> None:
        self._sources, self._target, self._transaction, self._recast = sources, target, transaction, recast
        self._message, self._what = message, what
        self._now = Snapshot(target, transaction.commits)
        self._infos = {name: self._info(name, collection) for name, collection in sources.items()}
        self._new = {name for name in sources if name not in self._now.collections}
        self._ids: dict[tuple[str, str], str] = {}
        self._tasks: list[MoveTask] = []
        self._metadata: dict[str, dict[str, Any]] = {}
        self._columns: dict[str, Column] = {}
        self._finished: list[MoveResult] = []
        self.skipped = 0

    def _info(self, name: str, collection: VolumeCollection) -> CollectionInfo:
        """The collection in the target: that which is there, or one to be made."""
        mine = collection.info
        there = self._now.collections.get(name)
        if there is None:
            # Whoever computes into a collection finds it by an id that its name gives.
            return CollectionInfo(collection_id(name) if mine.computed else token_hex(8), name, mine.kind, mine.recipe)
        if there.kind != mine.kind:
            raise ConfigError(
                f"collection {name!r} of {self._target.uri} holds {there.kind}s, and that of {collection.snapshot.store.uri} holds "
                f"{mine.kind}s; rename one of them first"
            )
        if there.computed != mine.computed:
            raise ConfigError(
                f"collection {name!r} of one of {self._target.uri} and {collection.snapshot.store.uri} was computed from other "
                "volumes, and that of the other was not; rename the one that was not"
            )
        if mine.classes and mine.classes != there.classes:
            raise ConfigError(
                f"collection {name!r} of {self._target.uri} has the classes {dict(there.recipe.get(CLASSES, {}))}, and that of "
                f"{collection.snapshot.store.uri} has {dict(mine.recipe[CLASSES])}: the same values would mean different things; "
                "name them alike with an ingest (classes=, --classes), or rename one of the collections"
            )
        return there

    def plan(self, subjects: Sequence[str], snapshots: Sequence[Snapshot], *, replace: bool) -> None:
        """Find what has to be written."""
        moves: dict[str, list[Move]] = {subject: [] for subject in subjects}
        conflicts: list[str] = []
        for name, collection in self._sources.items():
            for move in self._moves(name, collection, moves, conflicts):
                moves[move.ref.obs_subject_id].append(move)
        self._plan_metadata(list(moves), snapshots, conflicts)
        if conflicts and not replace:
            more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
            raise ConfigError(
                f"{self._target.uri} has something else already: {conflicts[0]}{more}; nothing was written. Replace it (replace=True), or "
                "rename or remove what is there"
            )
        for subject, wanted in moves.items():
            if wanted or subject in self._metadata:
                self._tasks.append(MoveTask(subject, tuple(wanted), self._recast, self._target))
            else:
                self.skipped += 1
        if self._metadata:
            # Before voxels are written: a column of another kind is an error. It shows with the first commit that uses it.
            self._target.table("obs_meta").add_columns(list(self._columns.values()))

    def _moves(
        self, name: str, collection: VolumeCollection, subjects: Mapping[str, Any], conflicts: list[str]
    ) -> Iterator[Move]:
        snapshot, own = collection.snapshot, collection.name
        index, info = snapshot.index(own), self._infos[name]
        details = snapshot.details(own, snapshot.detail_columns(own))
        there: dict[str, tuple[str, str]] = {}
        if name not in self._new:
            noted = self._now.details(name, ["content_hash", "recipe"])
            pairs = zip(noted["content_hash"].tolist(), noted["recipe"].tolist(), strict=True)
            there = dict(zip(self._now.index(name).obs_ids.tolist(), pairs, strict=True))
        for place in dict.fromkeys(collection.places.tolist()):  # one may be chosen twice
            ref = index.ref(place)
            if ref.obs_subject_id not in subjects:
                continue
            row = {column: _scalar(values[place]) for column, values in details.items()}
            row["obs_id"] = obs_id = moved_id(ref.obs_id, ref.obs_subject_id, own, name)
            self._ids[name, obs_id] = ref.obs_id
            recipe = self._recipe(row)
            known = there.get(obs_id)
            if known is not None:
                content = self._recast.moves_voxels or known[0] == row["content_hash"]
                if content and (self._recast.keeps_arrays or known[1] == recipe):
                    continue
                conflicts.append(f"volume {obs_id!r} of collection {name!r}")
            yield Move(name, info.kind, info.id, ref, index.affines[place], row, recipe, snapshot.store.config)

    def _recipe(self, row: Mapping[str, Any]) -> str:
        old = json.loads(row["recipe"])
        if self._recast.keeps_arrays:
            return str(row["recipe"])
        new = json.loads(recipe_of(old.get("orientation"), writing(self._target.config, self._recast)))
        done = self._recast.recipe(row["content_hash"])
        return json.dumps(old | new | ({"recast": done} if done else {}), sort_keys=True)

    def _plan_metadata(self, subjects: Sequence[str], snapshots: Sequence[Snapshot], conflicts: list[str]) -> None:
        """Which rows of subjects are new or get other values."""
        given: dict[str, dict[str, Any]] = {subject: {} for subject in subjects}
        for snapshot in snapshots:
            known = snapshot.store.table("obs_meta").columns()
            for name, column_values in snapshot.metadata().items():
                column = known[f"{USER_PREFIX}{name}"]
                self._columns[column.name] = column
                for subject, value in zip(snapshot.subject_ids, column_values, strict=True):
                    if subject in given and not _is_missing(value):
                        given[subject][column.name] = _scalar(value)
        mine = self._now.metadata()
        for subject, values in given.items():
            place = self._now.subject_places.get(subject)
            if place is None:
                self._metadata[subject] = values
                continue
            old = {
                f"{USER_PREFIX}{name}": _scalar(stored[place])
                for name, stored in mine.items()
                if not _is_missing(stored[place])
            }
            differ = [name for name, value in values.items() if old.get(name, value) != value]
            if differ:
                conflicts.append(f"column {differ[0].removeprefix(USER_PREFIX)!r} of subject {subject!r}")
            if old | values != old:
                self._metadata[subject] = old | values

    def run(
        self,
        report: TransferReport,
        workers: int,
        executor: Executor | None,
        show: Callable[[int, int], object],
        interval: float,
    ) -> None:
        """Do it."""
        results = run(move_subject, self._tasks, workers=workers, executor=executor, lost=lost)
        show(0, len(self._tasks))  # who is skipped is done
        taken = itertools.count(1)

        def take(result: MoveResult) -> None:
            if result.failure is None:
                self._finished.append(result)
            elif result.fatal:
                raise StoreWriteError(result.failure)
            else:
                report.failed[result.subject] = result.failure
            show(next(taken), len(self._tasks))

        commit_in_turn(results, take, lambda _: self._commit(report), lambda: self._finished, interval)

    def _commit(self, report: TransferReport) -> None:
        finished = self._finished
        made: list[str] = []
        try:
            volumes = sum(self._append(name, finished, made) for name in self._sources)
            rows = {
                result.subject: self._metadata[result.subject]
                for result in finished
                if result.subject in self._metadata
            }
            columns = list(self._columns) if rows else []
            if rows:
                table = self._target.table("obs_meta")
                self._transaction.append(
                    table, columns_of([{"obs_subject_id": subject, **row} for subject, row in rows.items()])
                )
            if self._transaction.pending:
                said = f"{self._what} {volumes} volumes of {len(finished)} subjects"
                names = [name.removeprefix(USER_PREFIX) for name in columns]
                changes = {"volumes": volumes, "obs_meta": len(rows), "columns": names}
                self._transaction.commit(said if self._message is None else self._message, changes)
        except BaseException:
            self._transaction.abandon()
            raise
        self._finished = []
        self._new -= set(made)
        report.subjects += len(finished)
        report.volumes += volumes

    def _append(self, name: str, finished: Iterable[MoveResult], made: list[str]) -> int:
        """Append the rows of a collection; returns the number of volumes."""
        rows = [row for result in finished for row in result.rows.get(name, [])]
        if not rows:
            return 0
        info, collection = self._infos[name], self._sources[name]
        if name in self._new:
            self._target.create_collection(info.id, COLLECTION_TABLES)
        table = self._target.table("c", info.id, "obs")
        source = collection.snapshot.store.table("c", collection.info.id, "obs")
        table.add_columns(list(source.columns().values()))
        self._transaction.append(table, columns_of(rows))
        index = [row for result in finished for row in result.foreground.get(name, [])]
        if not self._recast.moves_voxels:
            index = _foreground(collection, {self._ids[name, row["obs_id"]]: row["obs_id"] for row in rows})
        if index:
            self._transaction.append(self._target.table("c", info.id, "foreground"), columns_of(index))
        if name in self._new:
            recipe = json.dumps(dict(info.recipe), sort_keys=True)
            row = {"collection_id": [info.id], "name": [name], "kind": [info.kind], "recipe": [recipe]}
            self._transaction.append(self._target.table("collections"), row)
            made.append(name)
        return len(rows)


def _foreground(collection: VolumeCollection, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of the source's foreground index of some volumes, under their new ids."""
    if collection.kind != "label":
        return []
    index = collection.snapshot.index(collection.name)
    written = {obs_id: int(index.commits[index.place(obs_id)]) for obs_id in ids}
    table = collection.snapshot.store.table("c", collection.info.id, "foreground")
    rows = table.read(where=one_of("obs_id", ids))
    columns = {name: rows[name].tolist() for name in table.columns()}
    mine = [
        place for place, commit in enumerate(rows["commit"].tolist()) if written[columns["obs_id"][place]] == commit
    ]
    return [
        {name: values[place] for name, values in columns.items()} | {"obs_id": ids[columns["obs_id"][place]]}
        for place in mine
    ]


def _scalar(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return value
    return value.item() if isinstance(value, np.generic) else value


def _is_missing(value: Any) -> bool:
    return value is None or bool(value != value)
