"""Removing from disk what no version of a store needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tiledb

from radioloader._checks import as_whole
from radioloader.errors import StoreWriteError
from radioloader.storage.context import context_for
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import newest
from radioloader.storage.uri import join
from radioloader.storage.versions import FORGOTTEN, oldest_version

__all__ = ["Vacuumed", "vacuum"]

_GRACE_S = 3600.0
"""Age from which on an array that no row names is taken for abandoned: computed volumes are written before their commit begins."""


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was removed.

    Attributes:
        volumes: Voxel arrays.
        collections: Folders of collections that never came to exist, or that no version has.
        bytes: Their size.
        forgotten: The versions up to this one cannot be opened any more; 0: all can.
    """

    volumes: int
    collections: int
    bytes: int
    forgotten: int


def vacuum(store: Store, *, keep: int | None, message: str | None = None, grace_s: float = _GRACE_S) -> Vacuumed:
    """Remove voxel arrays and collections that no version needs: what killed writers left, and what only versions had that are given up.

    Args:
        store: The store.
        keep: How many of the newest versions can be opened afterwards; None keeps all.
        message: Of the commit that notes which versions are given up.
        grace_s: Arrays that no row names, and that are younger, are left.

    Raises:
        StoreLockedError, StoreWriteError: The store cannot be written.
    """
    if keep is not None:
        as_whole(keep, "keep", minimum=1)
    with store.write() as transaction:
        oldest = oldest_version(store)
        if keep is not None and transaction.commits.version - keep >= oldest:
            last = transaction.commits.version - keep
            said = f"forgot versions up to {last}"
            # First it is said, and then done: nobody opens a version of which a part is gone.
            transaction.commit(said if message is None else message, {FORGOTTEN: last})
            oldest = last + 1
        try:
            return _remove(store, transaction, oldest, grace_s)
        except tiledb.TileDBError as error:
            raise StoreWriteError(f"could not remove from {store.uri} what no version needs: {error}") from error


def _remove(store: Store, transaction: Transaction, oldest: int, grace_s: float) -> Vacuumed:
    vfs = tiledb.VFS(ctx=context_for(store.uri, store.config))
    rows = store.table("collections").read(["collection_id"])
    known, version = transaction.commits.locate(rows["commit"])
    then = newest(rows, transaction.commits.until(oldest), "collection_id")["collection_id"].tolist()
    needed = {*then, *rows["collection_id"][known & (version > oldest)].tolist()}
    committed = set(rows["collection_id"][known].tolist())
    volumes = collections = size = 0
    for name in _children(vfs, join(store.uri, "c")):
        uri = store.collection_uri(name)
        if name not in needed:
            if name in committed or _age_s(vfs, join(uri, "obs")) >= grace_s:
                size += vfs.dir_size(uri)
                vfs.remove_dir(uri)
                collections += 1
            continue
        kept, given_up = _volumes(store, transaction, name, oldest)
        for array in _children(vfs, join(uri, "volumes")):
            path = f"volumes/{array}"
            if path not in kept and (path in given_up or _age_s(vfs, join(uri, path)) >= grace_s):
                size += vfs.dir_size(join(uri, path))
                vfs.remove_dir(join(uri, path))
                volumes += 1
    return Vacuumed(volumes, collections, size, oldest - 1)


def _volumes(store: Store, transaction: Transaction, collection_id: str, oldest: int) -> tuple[set[str], set[str]]:
    """Paths of the arrays of a collection that versions from ``oldest`` on need, and of those that only older ones needed."""
    rows = store.table("c", collection_id, "obs").read(["obs_id", "uri"])
    known, version = transaction.commits.locate(rows["commit"])
    later = known & (version > oldest) & ~rows["deleted"].astype(np.bool_)
    kept = {*newest(rows, transaction.commits.until(oldest), "obs_id")["uri"].tolist(), *rows["uri"][later].tolist()}
    return kept, set(rows["uri"][known].tolist()) - kept


def _children(vfs: tiledb.VFS, uri: str) -> Iterator[str]:
    found: list[str] = []
    with contextlib.suppress(tiledb.TileDBError):  # nothing is there
        found = [child.rstrip("/").rpartition("/")[2] for child in vfs.ls(uri)]
    return iter(sorted(name for name in found if name and not name.startswith("__")))


def _age_s(vfs: tiledb.VFS, array: str) -> float:
    """How long ago an array was made, by the name of its schema; without end where it has none."""
    try:
        names = [uri.rstrip("/").rpartition("/")[2] for uri in vfs.ls(join(array, "__schema"))]
        made = min(int(name.split("_")[2]) for name in names if not name.startswith("__enum"))
    except (tiledb.TileDBError, ValueError, IndexError):
        return float("inf")
    return time.time() - made / 1000
