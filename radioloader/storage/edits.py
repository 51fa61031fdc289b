"""Removing and renaming: rows that hide or replace older ones. No voxel array is touched, so that older versions stay as they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage.catalog import CollectionInfo
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import Table, newest, one_of

__all__ = ["drop_collection", "drop_subjects", "drop_volumes", "move_subjects", "move_volumes", "rename_collection"]

_SYSTEM = ("row", "commit", "deleted")
Rows = dict[str, npt.NDArray[Any]]


def _rows_of(table: Table, transaction: Transaction, key: str, ids: Iterable[str]) -> Rows:
    """The current rows of some ids, of which there is at least one, with all columns."""
    return newest(table.read(where=one_of(key, ids)), transaction.commits, key)


def _append(table: Table, transaction: Transaction, rows: Rows, *, deleted: bool = False, **changed: list[Any]) -> None:
    values: dict[str, Any] = {name: column.tolist() for name, column in rows.items() if name not in _SYSTEM}
    values |= changed
    transaction.append(table, values | {"deleted": [deleted] * len(rows["row"])})


def drop_volumes(store: Store, transaction: Transaction, info: CollectionInfo, obs_ids: Iterable[str]) -> int:
    """Append tombstones of volumes; returns how many there were."""
    gone = set(obs_ids)
    if not gone:
        return 0
    table = store.table("c", info.id, "obs")
    rows = _rows_of(table, transaction, "obs_id", gone)
    _append(table, transaction, rows, deleted=True)
    return len(rows["row"])


def move_volumes(
    store: Store, transaction: Transaction, info: CollectionInfo, moves: Mapping[str, tuple[str, str]]
) -> int:
    """Give volumes other ids.

    Args:
        store: The store.
        transaction: Its writer's.
        info: Their collection.
        moves: New obs_id and subject by obs_id.

    Returns:
        How many there were.
    """
    table = store.table("c", info.id, "obs")
    rows = _rows_of(table, transaction, "obs_id", moves)
    old = rows["obs_id"].tolist()
    # First all old ids go, then the new ones come: two volumes may change their ids with each other.
    _append(table, transaction, rows, deleted=True)
    _append(
        table,
        transaction,
        rows,
        obs_id=[moves[id_][0] for id_ in old],
        obs_subject_id=[moves[id_][1] for id_ in old],
    )
    index = store.table("c", info.id, "foreground")
    found = index.read(where=one_of("obs_id", moves))
    # Rows of the index belong to a volume when their commit is that of its row.
    written = dict(zip(old, rows["commit"].tolist(), strict=True))
    mine = np.array(
        [written.get(id_) == commit for id_, commit in zip(found["obs_id"], found["commit"].tolist(), strict=True)],
        np.bool_,
    )
    kept = {name: values[mine] for name, values in found.items()}
    _append(index, transaction, kept, obs_id=[moves[id_][0] for id_ in kept["obs_id"].tolist()])
    return len(old)


def drop_subjects(store: Store, transaction: Transaction, subjects: Iterable[str]) -> int:
    """Append tombstones of subjects' own rows; returns how many there were."""
    table = store.table("obs_meta")
    rows = _rows_of(table, transaction, "obs_subject_id", subjects)
    _append(table, transaction, rows, deleted=True)
    return len(rows["row"])


def move_subjects(store: Store, transaction: Transaction, renamed: Mapping[str, str]) -> None:
    """Give subjects' own rows other ids."""
    table = store.table("obs_meta")
    rows = _rows_of(table, transaction, "obs_subject_id", renamed)
    _append(table, transaction, rows, deleted=True)
    _append(table, transaction, rows, obs_subject_id=[renamed[id_] for id_ in rows["obs_subject_id"].tolist()])


def drop_collection(store: Store, transaction: Transaction, info: CollectionInfo) -> int:
    """Append tombstones of a collection and its volumes; returns how many volumes there were."""
    table = store.table("c", info.id, "obs")
    # Of the volumes too: one of the same id on disk may be begun again.
    rows = newest(table.read(), transaction.commits, "obs_id")
    _append(table, transaction, rows, deleted=True)
    names = store.table("collections")
    _append(names, transaction, _rows_of(names, transaction, "collection_id", [info.id]), deleted=True)
    return len(rows["row"])


def rename_collection(store: Store, transaction: Transaction, info: CollectionInfo, name: str) -> None:
    """Append a row of a collection under another name."""
    table = store.table("collections")
    _append(table, transaction, _rows_of(table, transaction, "collection_id", [info.id]), name=[name])
