"""A store as a whole: creating it, opening it, the commit log, the writer's lock.

A change writes voxels first, table rows next, and last its row in ``commits/``; only then does any of it exist. A process
killed at any moment therefore leaves a store that shows one consistent version, with nothing to repair.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiledb

from radioloader.config import StorageConfig, get_config
from radioloader.errors import (
    NotAStoreError,
    ReadError,
    StoreNotFoundError,
    StoreVersionError,
    StoreWriteError,
)
from radioloader.storage._lock import LOCK, creators_lock, writers_lock
from radioloader.storage.context import context_for
from radioloader.storage.table import Column, Commits, Table
from radioloader.storage.uri import is_remote, join, normalise

__all__ = ["FORMAT", "FORMAT_VERSION", "Store", "Transaction"]

FORMAT = "radioloader"
FORMAT_VERSION = 1
_COMMIT_BITS = 39
_ABANDONED_AFTER_S = 3600
_BUILDING = ".creating-"

_TABLES: dict[str, list[Column]] = {
    "commits": [
        Column("version", "int"),
        Column("time", "int"),
        Column("message", "str"),
        Column("changes", "str"),
    ],
    "collections": [
        Column("collection_id", "str"),
        Column("name", "str"),
        Column("kind", "str"),
        Column("recipe", "str"),
    ],
    "obs_meta": [Column("obs_subject_id", "str")],
}


class Store:
    """Handle on the store at ``uri``. Holds no open file; small and picklable.

    Use :meth:`open` or :meth:`open_or_create`; the constructor looks at nothing.
    """

    def __init__(self, uri: str, config: StorageConfig) -> None:
        self.uri = uri
        self.config = config

    @classmethod
    def open(cls, uri: str | os.PathLike[str], *, config: StorageConfig | None = None) -> Store:
        """Open an existing store.

        Raises:
            StoreNotFoundError: Nothing is there.
            NotAStoreError: Something else is there.
            StoreVersionError: A newer radioloader wrote it.
            ReadError: The object store cannot be reached, or refuses.
        """
        store = cls.find(uri, config=config)
        if store is None:
            place = normalise(uri)
            raise StoreNotFoundError(
                f"there is no radioloader store at {place}; create one with: radioloader ingest {place} --image NAME=SOURCE"
            )
        return store

    @classmethod
    def find(cls, uri: str | os.PathLike[str], *, config: StorageConfig | None = None) -> Store | None:
        """The store at ``uri``, or None where one may be created: where nothing (or an empty folder) is.

        Raises:
            NotAStoreError, StoreVersionError, ReadError: As :meth:`open`.
        """
        store = cls(normalise(uri), get_config() if config is None else config)
        return store if store._check() else None

    @classmethod
    def open_or_create(cls, uri: str | os.PathLike[str], *, config: StorageConfig | None = None) -> Store:
        """Open the store at ``uri``, or create an empty one where nothing (or an empty folder) is.

        Raises:
            NotAStoreError, StoreVersionError, ReadError: As :meth:`open`.
            StoreWriteError: The place cannot be written.
        """
        store = cls(normalise(uri), get_config() if config is None else config)
        if not store._check():
            store._create()
        return store

    def _check(self) -> bool:
        """Whether a usable store is at the URI; False when it may be created there."""
        if not is_remote(self.uri):
            path = Path(self.uri)
            try:
                if path.is_symlink() and not path.exists():
                    raise NotAStoreError(
                        f"{self.uri} is a link to {path.readlink()}, which does not exist; restore it, or remove the link"
                    )
                if not path.exists():
                    return False
                if not path.is_dir():
                    raise NotAStoreError(f"{self.uri} is a file, not a radioloader store; give another path")
                if not any(path.iterdir()):
                    return False
            except OSError as error:
                raise ReadError(f"could not look at {self.uri}: {error.strerror}") from error
        ctx = context_for(self.uri, self.config)
        try:
            kind = tiledb.object_type(self.uri, ctx=ctx)
            if kind is None and is_remote(self.uri) and not tiledb.VFS(ctx=ctx).ls(self.uri):
                return False
            metadata: dict[str, Any] = {}
            if kind == "group":
                with tiledb.Group(self.uri, "r", ctx=ctx) as group:
                    metadata = {name: group.meta[name] for name in ("format", "format_version") if name in group.meta}
        except tiledb.TileDBError as error:
            raise ReadError(f"could not open {self.uri}: {error}") from error
        if not metadata and self._is_begun(kind, ctx):
            return False
        if metadata.get("format") != FORMAT:
            what = {None: "a folder with other content", "array": "a TileDB array", "group": "another TileDB group"}[
                kind
            ]
            raise NotAStoreError(
                f"{self.uri} is {what}, not a radioloader store; give another path, or an empty folder"
            )
        version = metadata.get("format_version")
        if not isinstance(version, int | np.integer) or version < 1:
            found = "no format version" if version is None else f"the format version {version!r}"
            raise NotAStoreError(
                f"{self.uri} says that it is a radioloader store, but has {found}, expected a whole number from 1 on; restore it from a "
                "backup, or give another path"
            )
        if version > FORMAT_VERSION:
            raise StoreVersionError(
                f"{self.uri} has format version {version}, this radioloader reads up to {FORMAT_VERSION}; "
                "upgrade it with: pip install --upgrade radioloader"
            )
        return True

    def _is_begun(self, kind: str | None, ctx: tiledb.Ctx) -> bool:
        """Whether what is there is only what a creation leaves that was interrupted before it wrote the metadata."""
        parts = {*_TABLES, "__tiledb_group.tdb", "__group", "__meta"}
        if is_remote(self.uri):
            if kind != "group":
                return False
            try:
                names = {uri.rstrip("/").rpartition("/")[2] for uri in tiledb.VFS(ctx=ctx).ls(self.uri)}
            except tiledb.TileDBError as error:
                raise ReadError(f"could not look at {self.uri}: {error}") from error
            return names <= parts
        names = set(os.listdir(self.uri))
        # Locally the lock is there first, and tables come whole; what looks different is somebody else's.
        if LOCK not in names or any(name not in {*parts, LOCK} and not name.startswith(_BUILDING) for name in names):
            return False
        return all(tiledb.object_type(join(self.uri, name), ctx=ctx) == "array" for name in names & _TABLES.keys())

    def _create(self) -> None:
        try:
            if is_remote(self.uri):
                self._build(self.uri)
            else:
                self._create_locally()
        except (tiledb.TileDBError, StoreWriteError) as error:
            raise StoreWriteError(f"could not create a store at {self.uri}: {error}") from error
        except OSError as error:
            raise StoreWriteError(
                f"could not create a store at {self.uri}: {error.strerror}; choose a place that you may write to"
            ) from error

    def _create_locally(self) -> None:
        target = Path(self.uri)
        if target.exists():
            self._create_inside(target)
            return
        # Built beside its place and renamed into it: nobody ever sees half a store.
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.creating-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(left)
        scratch = target.parent / f".{target.name}.creating-{secrets.token_hex(6)}"
        try:
            scratch.mkdir()
            self._build(str(scratch))
            try:
                scratch.rename(target)
            except OSError as error:
                # Another process was first; its store is as good as ours.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not self._check():
                    self._create_inside(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _create_inside(self, target: Path) -> None:
        """Create the store in a folder that exists and stays the same one: it may be a mount point, or somebody's working directory."""
        with creators_lock(target):
            if self._check():
                return
            for name in os.listdir(target):  # what an interrupted creation left, as _check said
                if name.startswith((_BUILDING, "__")) or name in _TABLES:
                    left = target / name
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            scratch = target / f"{_BUILDING}{secrets.token_hex(6)}"
            try:
                self._build(str(scratch))
                # The metadata come last: with them it is a store.
                for name in sorted(os.listdir(scratch), key=lambda name: name == "__meta"):
                    (scratch / name).rename(target / name)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _build(self, uri: str) -> None:
        ctx = context_for(uri, self.config)
        # On an object store this may go on where an interrupted creation stopped.
        if tiledb.object_type(uri, ctx=ctx) is None:
            tiledb.Group.create(uri, ctx=ctx)
        for name, columns in _TABLES.items():
            if tiledb.object_type(join(uri, name), ctx=ctx) is None:
                Table(join(uri, name), self.config).create(columns)
        with tiledb.Group(uri, "w", ctx=ctx) as group:
            group.meta["format"] = FORMAT
            group.meta["format_version"] = FORMAT_VERSION

    def table(self, *path: str) -> Table:
        """The table at ``path`` below the store, such as ``("obs_meta",)`` or ``("c", collection_id, "obs")``."""
        return Table(join(self.uri, *path), self.config)

    def collection_uri(self, collection_id: str) -> str:
        """URI of a collection's group."""
        return join(self.uri, "c", collection_id)

    def commits(self) -> Commits:
        """The commits that exist now."""
        rows = self.table("commits").read(["version", "time"])
        # Consolidation that was killed half-way may leave a row twice.
        ids, first = np.unique(rows["commit"], return_index=True)
        return Commits(ids=ids, versions=rows["version"][first], times=rows["time"][first])

    def history(self) -> list[dict[str, Any]]:
        """All commits, oldest first: ``version``, ``time`` (seconds since 1970), ``message``, ``changes``."""
        rows = self.table("commits").read()
        _, first = np.unique(rows["commit"], return_index=True)
        order = first[np.argsort(rows["version"][first], kind="stable")]
        return [
            {
                "version": int(rows["version"][i]),
                "time": int(rows["time"][i]) / 1000,
                "message": str(rows["message"][i]),
                "changes": json.loads(rows["changes"][i]),
            }
            for i in order
        ]

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Become the store's writer.

        Raises:
            StoreLockedError: Another process is writing, for longer than ``WriteConfig.wait_s``.
        """
        with contextlib.ExitStack() as stack:
            if not is_remote(self.uri):
                stack.enter_context(writers_lock(Path(self.uri), self.config.write.wait_s))
            yield Transaction(self)

    def create_collection(self, collection_id: str, tables: Mapping[str, Sequence[Column]]) -> None:
        """Make the group of a new collection and its tables, or what is missing of them; it exists once a committed row names it."""
        ctx = context_for(self.uri, self.config)
        uri = self.collection_uri(collection_id)
        try:
            if not is_remote(uri):
                # TileDB makes a missing parent for an array, not for a group.
                Path(uri).parent.mkdir(exist_ok=True)
            if tiledb.object_type(uri, ctx=ctx) is None:
                tiledb.Group.create(uri, ctx=ctx)
            missing = [name for name in tables if tiledb.object_type(join(uri, name), ctx=ctx) is None]
        except (tiledb.TileDBError, OSError) as error:
            raise StoreWriteError(f"could not create a collection in {self.uri}: {error}") from error
        for name in missing:
            Table(join(uri, name), self.config).create(tables[name])


class Transaction:
    """Rows on their way into a store. :meth:`commit` makes all appended since the last one exist, at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits = store.commits()
        self._begin()

    def _begin(self) -> None:
        taken = set(self.commits.ids.tolist())
        self._id = secrets.randbits(_COMMIT_BITS)
        while self._id in taken:
            self._id = secrets.randbits(_COMMIT_BITS)
        self._counters: dict[str, int] = {}

    @property
    def pending(self) -> bool:
        """Whether rows were appended since the last commit."""
        return bool(self._counters)

    def append(self, table: Table, rows: Mapping[str, Sequence[Any]]) -> None:
        """Append rows to a table; see :meth:`Table.append`."""
        if rows and len(next(iter(rows.values()))):
            self._counters[table.uri] = table.append(self._id, rows, counter=self._counters.get(table.uri, 0))

    def abandon(self) -> None:
        """Forget the rows appended since the last commit: they stay where they are, under an id that nobody will commit."""
        self._begin()

    def commit(self, message: str, changes: Mapping[str, Any]) -> int:
        """Make the appended rows exist.

        Args:
            message: What happened, for people.
            changes: What changed, as JSON-able values.

        Returns:
            The new version.
        """
        version = self.commits.version + 1
        log = self._store.table("commits")
        row: dict[str, Sequence[Any]] = {
            "version": [version],
            # A clock that was set back must not bring the order of versions and that of times apart.
            "time": [max(time.time_ns() // 1_000_000, int(self.commits.times.max(initial=0)))],
            "message": [message],
            "changes": [json.dumps(dict(changes), sort_keys=True)],
        }
        log.append(self._id, row)
        touched = [Table(uri, self._store.config) for uri in self._counters]
        self.commits = self._store.commits()
        self._begin()
        for table in [*touched, log]:
            table.consolidate()
        return version
