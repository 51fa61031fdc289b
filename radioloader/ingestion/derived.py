"""Volumes that were computed, not read from a file: into a store, whole subjects at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig
from radioloader.formats.nifti import make_header
from radioloader.geometry import axcodes, spacing
from radioloader.ingestion.statistics import occupied, statistics
from radioloader.ingestion.subject import recipe_of
from radioloader.storage.catalog import COLLECTION_TABLES, CollectionInfo, obs_row, pack_occupied, read_collections
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import newest
from radioloader.storage.uri import join
from radioloader.storage.writer import remove_volume, write_volume

__all__ = ["DerivedVolume", "append_volumes", "discard_volumes", "write_derived"]


@dataclass(frozen=True)
class DerivedVolume:
    """A volume that is written and does not exist yet: its row is missing.

    Attributes:
        collection: Name of its collection.
        row: Its row in the collection's ``obs`` table.
    """

    collection: str
    row: dict[str, Any]


def collection_id(name: str) -> str:
    """The name on disk of a collection of computed volumes: whoever writes into it finds the same one."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def write_derived(
    store: Store,
    collection: str,
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    *,
    subject: str,
    obs_id: str,
    source: str,
    source_hash: str,
    config: StorageConfig,
) -> DerivedVolume:
    """Write the voxels of a volume.

    Args:
        store: The store.
        collection: Name of the collection.
        voxels: (X, Y, Z) or (X, Y, Z, T).
        affine: (4, 4) voxel index to RAS mm.
        subject: The subject.
        obs_id: Id of the volume.
        source: What it was computed from.
        source_hash: Tells its sources from others.
        config: Tiles, filters, access.

    Raises:
        StoreWriteError: No permission, no space, or the object store refused.
        FormatError: The dtype cannot be stored.
    """
    codes = axcodes(affine)
    numbers = statistics(voxels, 1.0, 0.0)
    owner = f"subject {subject!r}, collection {collection!r}"
    uri = write_volume(store.collection_uri(collection_id(collection)), voxels, codes=codes, config=config, owner=owner)
    row = obs_row(
        obs_id=obs_id,
        obs_subject_id=subject,
        uri=uri,
        shape=voxels.shape,
        dtype=voxels.dtype.name,
        slope=1.0,
        intercept=0.0,
        affine=affine,
        spacing=spacing(affine),
        axcodes=codes,
        source_axcodes=codes,
        header=make_header(voxels.shape, voxels.dtype, affine),
        source=source,
        source_hash=source_hash,
        content_hash=hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest(),
        recipe=recipe_of(None, config),
        occupied=pack_occupied(occupied(voxels, numbers["stat_min"])),
        statistics=numbers,
    )
    return DerivedVolume(collection, row)


def append_volumes(
    store: Store,
    transaction: Transaction,
    volumes: Iterable[DerivedVolume],
    recipes: Callable[[str], Mapping[str, Any]],
) -> None:
    """Append the rows of volumes, those of new collections and of new subjects. With the commit they exist.

    Args:
        store: The store.
        transaction: Its writer's.
        volumes: The volumes.
        recipes: How the volumes of a collection were made, by its name.
    """
    existing = read_collections(store, transaction.commits)
    rows: dict[str, list[dict[str, Any]]] = {}
    for volume in volumes:
        rows.setdefault(volume.collection, []).append(volume.row)
    for name, found in rows.items():
        info = existing.get(name) or CollectionInfo(collection_id(name), name, "image", recipes(name))
        if name not in existing:
            store.create_collection(info.id, COLLECTION_TABLES)
            recipe = json.dumps(dict(info.recipe), sort_keys=True)
            row = {"collection_id": [info.id], "name": [name], "kind": [info.kind], "recipe": [recipe]}
            transaction.append(store.table("collections"), row)
        transaction.append(store.table("c", info.id, "obs"), {key: [row[key] for row in found] for key in found[0]})
    table = store.table("obs_meta")
    # Not those of a commit that never came: their rows lie in the table, and nobody sees them.
    rows_now = newest(table.read(["obs_subject_id"]), transaction.commits, "obs_subject_id")
    known = set(rows_now["obs_subject_id"].tolist())
    new = sorted({row["obs_subject_id"] for found in rows.values() for row in found} - known)
    if new:
        transaction.append(table, {"obs_subject_id": new})


def discard_volumes(store: Store, volumes: Iterable[DerivedVolume], config: StorageConfig) -> None:
    """Remove the voxels of volumes that will not exist."""
    for volume in volumes:
        with suppress(tiledb.TileDBError):
            remove_volume(join(store.collection_uri(collection_id(volume.collection)), volume.row["uri"]), config)
