"""Ingest of one subject: what runs in a worker process.

Reads each source once, writes its voxels under a new name and returns the rows that would make it visible. It touches no
table: the process that called commits whole subjects.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tiledb

from radioloader.config import SliceOrientation, StorageConfig
from radioloader.errors import GridMismatchError
from radioloader.formats.orientation import turn_grid
from radioloader.geometry import axcodes, grid_distance, spacing
from radioloader.ingestion.classes import whole_numbers
from radioloader.ingestion.committing import explain
from radioloader.ingestion.intake import Place, VolumeSource
from radioloader.ingestion.slots import obs_id_of
from radioloader.ingestion.statistics import MAX_CLASSES, empty_value, foreground, occupied
from radioloader.ingestion.stored import Known
from radioloader.storage.catalog import obs_row, pack_occupied
from radioloader.storage.uri import join
from radioloader.storage.writer import remove_volume, write_volume

__all__ = ["Grid", "SubjectResult", "SubjectTask", "Target", "discard", "ingest_subject", "recipe_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the volumes of a collection go.

    Attributes:
        uri: The collection's group.
        kind: ``"image"`` or ``"label"``.
        collection: Its name.
    """

    uri: str
    kind: str
    collection: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a volume lies.

    Attributes:
        kind: ``"image"`` or ``"label"``.
        source: Its file, for messages.
        shape: (X, Y, Z) or (X, Y, Z, T) in voxels, as stored.
        affine: (4, 4) float64, voxel index to RAS mm, as stored.
        collection: Its collection, for messages.
    """

    kind: str
    source: str
    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    collection: str


@dataclass(frozen=True, slots=True)
class SubjectTask:
    """One subject to ingest.

    Attributes:
        subject: Its id.
        sources: Source by slot (:mod:`radioloader.ingestion.slots`).
        targets: Every slot's :class:`Target`.
        known: What the store has of this subject, by slot.
        stored: Grids of this subject's volumes in the store's other collections.
        orientation: Axis codes to turn the voxels to; None keeps the file's.
        tolerance_mm: How far a label's grid may be off its image's.
        config: Tiles, filters, access.
    """

    subject: str
    sources: Mapping[str, VolumeSource]
    targets: Mapping[str, Target]
    known: Mapping[str, Known]
    stored: Mapping[str, Grid]
    orientation: str | None
    tolerance_mm: float
    config: StorageConfig

    @property
    def where(self) -> str:
        """The files of its sources, for messages."""
        return ", ".join(source.where for source in self.sources.values())


@dataclass(slots=True)
class SubjectResult:
    """Outcome of one task.

    Attributes:
        subject: Its id.
        rows: ``obs`` row by slot; slots that were unchanged are not in it.
        foreground: Rows of the foreground index by slot.
        failure: Why the subject failed, or None.
        fatal: Whether the failure is the store's, so that going on makes no sense.
        notes: What a user should know.
        voxel_bytes: Bytes of voxels that were written.
    """

    subject: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    foreground: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failure: str | None = None
    fatal: bool = False
    notes: list[str] = field(default_factory=list)
    voxel_bytes: int = 0


def recipe_of(orientation: str | None, config: StorageConfig, source: Mapping[str, Any] | None = None) -> str:
    """What decides the stored form of a volume besides its source's files, as JSON: a volume with another recipe is ingested anew."""
    tile, compression = config.write.tile, config.write.compression
    shaped: dict[str, Any] = {"orientation": tile.orientation.value}
    if tile.custom is not None:
        shaped["custom"] = tile.custom
    elif tile.orientation is SliceOrientation.ISOTROPIC:
        shaped["extent"] = tile.extent
    packed: dict[str, Any] = {"codec": compression.codec, "checksum": compression.checksum}
    if compression.codec != "none":
        packed["shuffle"] = compression.shuffle
    if compression.codec == "zstd":
        packed["level"] = compression.level
    recipe: dict[str, Any] = {"orientation": orientation, "tile": shaped, "compression": packed}
    if source:
        recipe["source"] = dict(source)
    return json.dumps(recipe, sort_keys=True)


def ingest_subject(task: SubjectTask) -> SubjectResult:
    """Ingest the volumes of one subject; a failure is part of the result, and leaves nothing behind."""
    result = SubjectResult(task.subject)
    written: list[str] = []
    try:
        places = {name: source.place() for name, source in task.sources.items()}
        result.notes += _check_grids(task, places)
        for name in task.sources:
            _ingest_volume(task, name, result, written)
    except Exception as error:  # one subject must never stop the others
        result.failure, result.fatal = explain(error, task.where)
    if result.failure is not None:
        discard(result, result.failure, written, task.config)
    return result


def discard(result: SubjectResult, reason: str, uris: Iterable[str], config: StorageConfig) -> None:
    """Make a failure of a result, and remove the volumes that were written for it."""
    result.failure, result.rows, result.foreground = reason, {}, {}
    for uri in uris:
        with contextlib.suppress(tiledb.TileDBError):
            remove_volume(uri, config)


def _ingest_volume(task: SubjectTask, name: str, result: SubjectResult, written: list[str]) -> None:
    source, target = task.sources[name], task.targets[name]
    recipe = recipe_of(task.orientation, task.config, source.recipe)
    known = task.known.get(name)
    if known is not None and known.recipe == recipe and known.source_hash == source.hash():
        return
    volume = source.load(task.orientation)
    numbers = volume.statistics
    if numbers["nonfinite"]:
        result.notes.append(f"{source.where}: {int(numbers['nonfinite'])} voxels are NaN or infinite; kept as they are")
    result.notes += [f"{source.where}: {note}" for note in volume.notes]
    obs_id = obs_id_of(task.subject, name)
    if target.kind == "label":
        volume = whole_numbers(volume, f"{source.where} ({target.collection})")
        rows = foreground(
            volume.voxels, bytes.fromhex(volume.content_hash), slope=volume.slope, intercept=volume.intercept
        )
        if not rows:
            result.notes.append(
                f"{source.where}: holds more than {MAX_CLASSES} classes, so this label has no foreground index"
            )
        result.foreground[name] = [{"obs_id": obs_id, **row} for row in rows]
    owner = f"subject {task.subject!r}, collection {target.collection!r}"
    uri = write_volume(target.uri, volume.voxels, codes=volume.codes, config=task.config, owner=owner)
    written.append(join(target.uri, uri))
    result.voxel_bytes += volume.voxels.nbytes
    result.rows[name] = obs_row(
        obs_id=obs_id,
        obs_subject_id=task.subject,
        uri=uri,
        shape=volume.voxels.shape,
        dtype=volume.voxels.dtype.name,
        slope=volume.slope,
        intercept=volume.intercept,
        affine=volume.affine,
        spacing=spacing(volume.affine),
        axcodes=volume.codes,
        source_axcodes=volume.source_codes,
        header=volume.header,
        source=source.name,
        source_hash=volume.source_hash,
        content_hash=volume.content_hash,
        recipe=recipe,
        occupied=pack_occupied(
            occupied(
                volume.voxels, empty_value(target.kind, numbers, volume.voxels.dtype, volume.slope, volume.intercept)
            )
        ),
        statistics=numbers,
        **volume.columns,
    )


def _check_grids(task: SubjectTask, headers: Mapping[str, Place]) -> list[str]:
    """Each label must lie on the grid of an image, also of one that is in the store; images that differ are worth a note."""
    grids = dict(task.stored)
    for name, header in headers.items():
        codes = axcodes(header.affine)
        shape, affine = turn_grid(header.shape, header.affine, codes, task.orientation or codes)
        grids[name] = Grid(
            task.targets[name].kind, task.sources[name].where, shape, affine, task.targets[name].collection
        )
    images = [name for name, grid in grids.items() if grid.kind == "image"]
    for label in (name for name, grid in grids.items() if grid.kind == "label"):
        problems = [_grid_problem(grids, label, image, task.tolerance_mm) for image in images]
        for image, problem in zip(images, problems, strict=True):
            # Turned away from an image that is stored, it would no longer be this one's label, whatever else it fits.
            if problem and label in headers and image not in headers:
                advice = _turn_advice(task, headers, grids, label, [image])
                if advice is not None:
                    raise GridMismatchError(advice)
        if problems and all(problems) and any(name in headers for name in (label, *images)):
            raise GridMismatchError(_turn_advice(task, headers, grids, label, images) or problems[0])
    new = [name for name in images[1:] if name in headers]
    return [p for name in new if (p := _grid_problem(grids, name, images[0], task.tolerance_mm)) is not None]


def _turn_advice(
    task: SubjectTask, headers: Mapping[str, Place], grids: Mapping[str, Grid], label: str, images: Sequence[str]
) -> str | None:
    """What to say when a label and an image share their grid once the new one of them is turned like the stored one; else None."""
    for image in images:
        for new, old in ((label, image), (image, label)):
            if new not in headers or old in headers:
                continue
            header, stored = headers[new], grids[old]
            codes, wanted = axcodes(header.affine), axcodes(stored.affine)
            shape, affine = turn_grid(header.shape, header.affine, codes, wanted)
            turned = {**grids, new: replace(grids[new], shape=shape, affine=affine)}
            if _grid_problem(turned, label, image, task.tolerance_mm) is not None:
                continue
            way = f"give orientation={wanted!r} (--orientation {wanted})"
            if task.orientation is not None and codes == wanted:
                way = f"leave orientation={task.orientation!r} (--orientation) out, or {way}"
            return (
                f"{grids[new].source} ({grids[new].collection}) lies on the grid of {stored.source} ({stored.collection}), but that one is "
                f"stored as {wanted}, and this one would be as {task.orientation or codes}: {way}, as it was when that one was ingested"
            )
    return None


def _grid_problem(grids: Mapping[str, Grid], name: str, reference: str, tolerance_mm: float) -> str | None:
    a, b = grids[name], grids[reference]
    what = f"{a.source} ({a.collection}) is not on the grid of {b.source} ({b.collection})"
    if a.shape[:3] != b.shape[:3]:
        return f"{what}: its shape is {a.shape[:3]}, expected {b.shape[:3]}"
    distance = grid_distance(a.affine, b.affine, a.shape)
    if distance > tolerance_mm:
        return (
            f"{what}: the same voxel lies up to {distance:.4g} mm apart, allowed are {tolerance_mm:g} mm; resample it, repair its "
            "affine, or raise the tolerance (grid_tolerance_mm, --grid-tolerance)"
        )
    return None
