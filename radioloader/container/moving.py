"""Moving the volumes of one subject from one store into another: what runs in a worker process.

It copies or rewrites voxels under a new name and returns the rows that would make them visible. It touches no table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import StorageConfig
from radioloader.container.recast import Recast
from radioloader.errors import ConfigError
from radioloader.ingestion.committing import explain
from radioloader.ingestion.derived import SourceGrid, write_derived
from radioloader.storage.copying import copy_array
from radioloader.storage.reader import VolumeReader
from radioloader.storage.store import Store
from radioloader.storage.uri import join
from radioloader.storage.writer import remove_volume
from radioloader.types import VolumeRef

__all__ = ["Move", "MoveResult", "MoveTask", "lost", "move_subject", "writing"]


@dataclass(frozen=True, slots=True)
class Move:
    """One volume on its way.

    Attributes:
        collection: The collection that it goes to.
        kind: Kind of that.
        on_disk: Id of that.
        ref: Where the volume lies.
        affine: (4, 4) float64, voxel index to RAS mm.
        row: Its row in the ``obs`` table, under the id that it is to have.
        recipe: That of what is written.
        config: Access to where the volume lies.
    """

    collection: str
    kind: str
    on_disk: str
    ref: VolumeRef
    affine: npt.NDArray[np.float64]
    row: Mapping[str, Any]
    recipe: str
    config: StorageConfig


@dataclass(frozen=True, slots=True)
class MoveTask:
    """One subject on its way.

    Attributes:
        subject: Its id.
        moves: Its volumes.
        recast: What is done to them.
        store: Where they go.
    """

    subject: str
    moves: tuple[Move, ...]
    recast: Recast
    store: Store


@dataclass(slots=True)
class MoveResult:
    """Outcome of one task.

    Attributes:
        subject: Its id.
        rows: ``obs`` rows by collection.
        foreground: Rows of the foreground index by collection; none of voxels that stayed what they are.
        written: Arrays that were written.
        failure: Why the subject failed, or None.
        fatal: Whether the failure is the store's, so that going on makes no sense.
    """

    subject: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    foreground: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    failure: str | None = None
    fatal: bool = False


def move_subject(task: MoveTask) -> MoveResult:
    """Write the volumes of one subject; a failure is part of the result, and leaves nothing behind."""
    result = MoveResult(task.subject)
    try:
        for move in task.moves:
            row, foreground = _copied(task, move) if task.recast.keeps_arrays else _rewritten(task, move)
            result.written.append(join(task.store.collection_uri(move.on_disk), row["uri"]))
            result.rows.setdefault(move.collection, []).append(row)
            result.foreground.setdefault(move.collection, []).extend(foreground)
    except Exception as error:  # one subject must never stop the others
        result.failure, result.fatal = explain(error, f"subject {task.subject!r}")
    if result.failure is not None:
        for uri in result.written:
            with suppress(tiledb.TileDBError):
                remove_volume(uri, task.store.config)
        result.rows, result.foreground = {}, {}
    return result


def lost(task: MoveTask) -> MoveResult:
    """The result of a task whose worker process died."""
    return MoveResult(
        task.subject,
        failure=f"the worker process died while it moved the volumes of subject {task.subject!r} (out of memory?); use fewer workers",
    )


def _copied(task: MoveTask, move: Move) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = f"volumes/{token_hex(12)}"
    target = join(task.store.collection_uri(move.on_disk), path)
    copy_array(
        move.ref.uri,
        target,
        source_config=move.config,
        config=task.store.config,
        owner=move.ref.describe(),
    )
    return {**move.row, "uri": path}, []


def _rewritten(task: MoveTask, move: Move) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    ref, recast = move.ref, task.recast
    inner = recast.inner(ref.shape)
    if inner is None:
        raise ConfigError(f"the crop lies beside {ref.describe()}, whose shape is {ref.shape}")
    with VolumeReader(move.config) as reader:
        voxels = reader.read(dataclasses.replace(ref, slope=1.0, intercept=0.0), inner)
    voxels = np.moveaxis(voxels, 0, 3) if len(ref.shape) == 4 else voxels
    voxels, affine = recast.apply(voxels, move.affine, inner.start, nearest=move.kind == "label")
    derived = write_derived(
        task.store,
        move.collection,
        voxels,
        affine,
        subject=task.subject,
        obs_id=move.row["obs_id"],
        source=move.row["source"],
        source_hash=move.row["source_hash"],
        config=writing(task.store.config, recast),
        kind=move.kind,
        slope=ref.slope,
        intercept=ref.intercept,
        grid=SourceGrid(move.row["header"], move.row["source_axcodes"]),
        on_disk=move.on_disk,
    )
    row = {**move.row, **derived.row, "recipe": move.recipe}
    if recast.moves_voxels:
        return row, list(derived.foreground)
    # The coordinates of the index are drawn by the content: they stay what they are.
    return {**row, "content_hash": move.row["content_hash"]}, []


def writing(config: StorageConfig, recast: Recast) -> StorageConfig:
    """The settings that voxels are written with."""
    return config if recast.write is None else dataclasses.replace(config, write=recast.write)
