"""One consistent version of a store, as readers see it."""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.config import StorageConfig, TileConfig
from radioloader.errors import KeyNotFoundError
from radioloader.storage.catalog import CollectionInfo, VolumeIndex, read_collections, read_index
from radioloader.storage.condition import Condition
from radioloader.storage.schema import tile_extents
from radioloader.storage.store import Store
from radioloader.storage.table import Column, Commits, newest
from radioloader.storage.versions import At, commits_at

__all__ = ["USER_PREFIX", "Snapshot"]

USER_PREFIX = "user."
"""Put before users' column names on disk, so that they never meet the system's."""


_open: weakref.WeakValueDictionary[tuple[int, str, StorageConfig], Snapshot] = weakref.WeakValueDictionary()


class Snapshot:
    """A store at the version that it had when this was made; later commits do not show.

    Everything is read when it is first asked for, and kept. Pickles as the URI and the version.

    Args:
        store: The store.
        commits: The version; None takes the newest.
    """

    def __init__(self, store: Store, commits: Commits | None = None) -> None:
        self.store = store
        self.commits = store.commits() if commits is None else commits
        self._indexes: dict[str, VolumeIndex] = {}
        self._details: dict[tuple[str, str], npt.NDArray[Any]] = {}
        self._tiles: dict[str, npt.NDArray[np.int64]] = {}
        self._known_columns: dict[str, list[str]] = {}

    @classmethod
    def open(
        cls, uri: str | os.PathLike[str], *, config: StorageConfig | None = None, at: At | None = None
    ) -> Snapshot:
        """The newest version of the store at ``uri``, or that of ``at``; see :meth:`Store.open` and
        :func:`~radioloader.storage.versions.commits_at`. One of the same version that is open already in this process is taken again: what
        it has read need not be read again by everyone who opens the store for one subject."""
        store = Store.open(uri, config=config)
        commits = commits_at(store, at)
        key = (os.getpid(), store.uri, store.config)
        known = _open.get(key)
        if known is not None and np.array_equal(known.commits.ids, commits.ids):
            return known
        snapshot = _open[key] = cls(store, commits)
        return snapshot

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "commits": self.commits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["commits"])  # type: ignore[misc]

    @cached_property
    def collections(self) -> dict[str, CollectionInfo]:
        """The collections by name."""
        return read_collections(self.store, self.commits)

    def collection(self, name: str) -> CollectionInfo:
        """The collection ``name``.

        Raises:
            KeyNotFoundError: There is none of that name.
        """
        try:
            return self.collections[name]
        except KeyError:
            raise KeyNotFoundError(
                f"{self.store.uri} has no collection {name!r}; it has {', '.join(map(repr, self.collections)) or 'none yet'}"
            ) from None

    def index(self, name: str) -> VolumeIndex:
        """The volumes of a collection."""
        if name not in self._indexes:
            self._indexes[name] = read_index(self.store, self.collection(name), self.commits)
        return self._indexes[name]

    def detail(self, name: str, column: str) -> npt.NDArray[Any]:
        """One column of a collection's ``obs`` table, in the order of :meth:`index`."""
        return self.details(name, [column])[column]

    def details(self, name: str, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Columns of a collection's ``obs`` table, in the order of :meth:`index`.

        Raises:
            KeyNotFoundError: The collection was written by a version that did not note one of them.
        """
        missing = [column for column in columns if (name, column) not in self._details]
        if missing:
            info, index = self.collection(name), self.index(name)
            unknown = sorted(set(missing) - set(self.detail_columns(name)))
            if unknown:
                raise KeyNotFoundError(
                    f"collection {name!r} of {self.store.uri} was ingested by a version of radioloader that did not note {unknown[0]!r}; "
                    "ingest it into a new store"
                )
            rows = newest(self.store.table("c", info.id, "obs").read(["obs_id", *missing]), self.commits, "obs_id")
            place = {obs_id: position for position, obs_id in enumerate(rows["obs_id"].tolist())}
            order = [place[obs_id] for obs_id in index.obs_ids.tolist()]
            self._details |= {(name, column): rows[column][order] for column in missing}
        return {column: self._details[name, column] for column in columns}

    def optional_detail(self, name: str, column: str) -> npt.NDArray[Any]:
        """One column as :meth:`detail`, or (n,) None where no volume of the collection ever had it."""
        if column not in self.detail_columns(name):
            return np.full(len(self.index(name)), None, dtype=object)
        return self.detail(name, column)

    def detail_columns(self, name: str) -> list[str]:
        """Names of the columns of a collection's ``obs`` table."""
        if name not in self._known_columns:
            self._known_columns[name] = list(self.store.table("c", self.collection(name).id, "obs").columns())
        return self._known_columns[name]

    def tiles(self, name: str) -> npt.NDArray[np.int64]:
        """(n, 3) extents (x, y, z) of each volume's tiles in voxels, in the order of :meth:`index`."""
        if name not in self._tiles:
            index = self.index(name)
            pairs = list(zip(self.detail(name, "recipe").tolist(), index.all_axcodes.tolist(), strict=True))
            # As if volumes had no end: few kinds of tiles for any number of volumes.
            kinds = {
                (recipe, codes): tile_extents((2**62,) * 3, TileConfig(**json.loads(recipe)["tile"]), codes)
                for recipe, codes in set(pairs)
            }
            tiles = np.array([kinds[pair] for pair in pairs], np.int64).reshape(-1, 3)
            self._tiles[name] = np.minimum(tiles, index.shapes[:, :3])
        return self._tiles[name]

    @cached_property
    def _subjects(self) -> tuple[list[str], npt.NDArray[np.uint64]]:
        """The subjects, sorted, and the row of each."""
        rows = newest(self.store.table("obs_meta").read(["obs_subject_id"]), self.commits, "obs_subject_id")
        return list(map(sys.intern, rows["obs_subject_id"].tolist())), rows["row"]

    @property
    def subject_ids(self) -> list[str]:
        """The subjects, sorted."""
        return self._subjects[0]

    @cached_property
    def _metadata_table(self) -> dict[str, Column]:
        return self.store.table("obs_meta").columns()

    @cached_property
    def subject_places(self) -> dict[str, int]:
        """Place of each subject in :attr:`subject_ids`."""
        return {subject: place for place, subject in enumerate(self.subject_ids)}

    def subjects_where(self, expression: str) -> npt.NDArray[np.bool_]:
        """(n,) which of :attr:`subject_ids` an expression over their own columns selects; see :mod:`radioloader.storage.condition`.

        Raises:
            ConfigError: It cannot be understood, or compares a column with a value of another kind.
            KeyNotFoundError: No such column.
        """
        known = self._metadata_table
        names = {"obs_subject_id": "obs_subject_id"} | {name: f"{USER_PREFIX}{name}" for name in self.metadata_columns}
        columns = {name: known[stored] for name, stored in names.items()}
        return Condition(expression, columns, f"obs_meta of {self.store.uri}").rows(
            self.store.table("obs_meta"), self._subjects[1]
        )

    def volumes_where(self, name: str, expression: str) -> npt.NDArray[np.bool_]:
        """(n,) which volumes of a collection an expression over the columns of its ``obs`` table selects, in the order of :meth:`index`.

        Raises:
            ConfigError, KeyNotFoundError: As for :meth:`subjects_where`.
        """
        table = self.store.table("c", self.collection(name).id, "obs")
        where = f"obs of collection {name!r} of {self.store.uri}"
        return Condition(expression, table.columns(), where).rows(table, self.index(name).rows)

    @cached_property
    def metadata_columns(self) -> list[str]:
        """Names of the subjects' own columns."""
        # The table's schema shows columns of later commits too; each commit names the columns that its rows use.
        rows = self.store.table("commits").read(["changes"])
        known, _ = self.commits.locate(rows["commit"])
        used = {name for changes in rows["changes"][known].tolist() for name in json.loads(changes).get("columns", [])}
        names = [name.removeprefix(USER_PREFIX) for name in self._metadata_table]
        return [name for name in names if name in used]

    def metadata(self, columns: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Subjects' own columns, (n,) in the order of :attr:`subject_ids`; None in object columns where a value is missing.

        Raises:
            KeyNotFoundError: No such column.
        """
        columns = self.metadata_columns if columns is None else columns
        unknown = [name for name in columns if name not in self.metadata_columns]
        if unknown:
            raise KeyNotFoundError(
                f"obs_meta of {self.store.uri} has no column {unknown[0]!r}; it has {', '.join(map(repr, self.metadata_columns)) or 'none'}"
            )
        on_disk = [f"{USER_PREFIX}{name}" for name in columns]
        rows = newest(self.store.table("obs_meta").read(["obs_subject_id", *on_disk]), self.commits, "obs_subject_id")
        return {name: rows[stored] for name, stored in zip(columns, on_disk, strict=True)}
