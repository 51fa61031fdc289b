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
from radioloader.ingestion.statistics import empty_value, foreground, occupied, statistics
from radioloader.ingestion.subject import recipe_of
from radioloader.storage.catalog import (
    COLLECTION_TABLES,
    CollectionInfo,
    columns_of,
    obs_row,
    pack_occupied,
    read_collections,
)
from radioloader.storage.edits import drop_volumes
from radioloader.storage.store import Store, Transaction
from radioloader.storage.table import newest
from radioloader.storage.uri import join
from radioloader.storage.writer import remove_volume, write_volume

__all__ = [
    "DerivedVolume",
    "SourceGrid",
    "append_volumes",
    "begin_collection",
    "collection_id",
    "discard_volumes",
    "write_derived",
]


@dataclass(frozen=True)
class SourceGrid:
    """The grid of the file that a volume comes from, on which it is exported.

    Attributes:
        header: NIfTI header block.
        axcodes: Axis codes of the file.
    """

    header: bytes
    axcodes: str


@dataclass(frozen=True)
class DerivedVolume:
    """A volume that is written and does not exist yet: its row is missing.

    Attributes:
        collection: Name of its collection.
        row: Its row in the collection's ``obs`` table.
        kind: Kind of that collection.
        foreground: Rows of the foreground index, of a label.
    """

    collection: str
    row: dict[str, Any]
    kind: str = "image"
    foreground: tuple[dict[str, Any], ...] = ()


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
    kind: str = "image",
    slope: float = 1.0,
    intercept: float = 0.0,
    grid: SourceGrid | None = None,
    on_disk: str | None = None,
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
        kind: ``"image"`` or ``"label"``, which gets a foreground index.
        slope: Multiplied to the stored values.
        intercept: Added after that.
        grid: The file's that it comes from; None: nobody knows.
        on_disk: Id of the collection; None: the one that goes with its name.

    Raises:
        StoreWriteError: No permission, no space, or the object store refused.
        FormatError: The dtype cannot be stored.
    """
    codes = axcodes(affine)
    numbers = statistics(voxels, slope, intercept)
    content_hash = hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest()
    index = []
    if kind == "label":
        index = foreground(voxels, bytes.fromhex(content_hash), slope=slope, intercept=intercept)
    owner = f"subject {subject!r}, collection {collection!r}"
    place = store.collection_uri(collection_id(collection) if on_disk is None else on_disk)
    uri = write_volume(place, voxels, codes=codes, config=config, owner=owner)
    empty = empty_value(kind, numbers, voxels.dtype, slope, intercept)
    row = obs_row(
        obs_id=obs_id,
        obs_subject_id=subject,
        uri=uri,
        shape=voxels.shape,
        dtype=voxels.dtype.name,
        slope=slope,
        intercept=intercept,
        affine=affine,
        spacing=spacing(affine),
        axcodes=codes,
        source_axcodes="" if grid is None else grid.axcodes,
        header=make_header(voxels.shape, voxels.dtype, affine) if grid is None else grid.header,
        source=source,
        source_hash=source_hash,
        content_hash=content_hash,
        recipe=recipe_of(None, config),
        occupied=pack_occupied(occupied(voxels, empty)),
        statistics=numbers,
    )
    return DerivedVolume(collection, row, kind, tuple({"obs_id": obs_id, **found} for found in index))


def begin_collection(
    store: Store, transaction: Transaction, name: str, kind: str, recipe: Mapping[str, Any], *, drop: Iterable[str] = ()
) -> None:
    """Append the row of a collection of computed volumes, which takes the place of an older one. With the commit it exists.

    Args:
        store: The store.
        transaction: Its writer's.
        name: The collection.
        kind: ``"image"`` or ``"label"``.
        recipe: How its volumes are made.
        drop: Ids of volumes of the older one that are no longer part of it.
    """
    id_ = collection_id(name)
    store.create_collection(id_, COLLECTION_TABLES)
    row = {"collection_id": [id_], "name": [name], "kind": [kind], "recipe": [json.dumps(dict(recipe), sort_keys=True)]}
    transaction.append(store.table("collections"), row)
    drop_volumes(store, transaction, CollectionInfo(id_, name, kind, recipe), drop)


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
    volumes = list(volumes)
    for name, kind in {volume.collection: volume.kind for volume in volumes}.items():
        if name not in existing:
            begin_collection(store, transaction, name, kind, recipes(name))
        id_ = existing[name].id if name in existing else collection_id(name)
        mine = [volume for volume in volumes if volume.collection == name]
        transaction.append(store.table("c", id_, "obs"), columns_of([volume.row for volume in mine]))
        index = [row for volume in mine for row in volume.foreground]
        if index:
            transaction.append(store.table("c", id_, "foreground"), columns_of(index))
    table = store.table("obs_meta")
    # Not those of a commit that never came: their rows lie in the table, and nobody sees them.
    rows_now = newest(table.read(["obs_subject_id"]), transaction.commits, "obs_subject_id")
    known = set(rows_now["obs_subject_id"].tolist())
    new = sorted({volume.row["obs_subject_id"] for volume in volumes} - known)
    if new:
        transaction.append(table, {"obs_subject_id": new})


def discard_volumes(store: Store, volumes: Iterable[DerivedVolume], config: StorageConfig) -> None:
    """Remove the voxels of volumes that will not exist."""
    for volume in volumes:
        with suppress(tiledb.TileDBError):
            remove_volume(join(store.collection_uri(collection_id(volume.collection)), volume.row["uri"]), config)
