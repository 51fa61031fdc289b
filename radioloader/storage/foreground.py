"""Reading the foreground index that ingest wrote: voxels of each class of each label volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage.catalog import VolumeIndex
from radioloader.storage.store import Store

__all__ = ["class_voxels", "foreground_of", "read_foreground"]

_ROWS = 1000  # of 24 kB: bounds what is held besides the result


def read_foreground(store: Store, index: VolumeIndex, obs_ids: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The foreground index of label volumes, as arrays without Python objects.

    Args:
        store: The store.
        index: The label collection.
        obs_ids: The n volumes, in the order of the result.

    Returns:
        ``foreground.first`` (n + 1,): the rows of volume i are first[i] up to first[i + 1], none where it has no index;
        ``foreground.class`` and ``foreground.voxels`` (rows,): the class, ascending within a volume, and its number of voxels;
        ``foreground.place`` (rows + 1,): its coordinates are place[row] up to place[row + 1]; ``foreground.coordinates`` (m, 3) uint16 or
        int32: voxels (x, y, z) of the stored grid.
    """
    table = store.table("c", index.info.id, "foreground")
    number = {obs_id: i for i, obs_id in enumerate(obs_ids)}
    rows, kept, volumes = _rows_of(table, index, number)
    counts = np.bincount(volumes, minlength=len(obs_ids)) if len(kept) else np.zeros(len(obs_ids), np.int64)
    largest = int(index.shapes[:, :3].max(initial=0))
    dtype = np.uint16 if largest <= 2**16 else np.int32
    pieces = _coordinates(table, rows["row"], rows["row"][kept], dtype)
    lengths = [len(piece) for piece in pieces]
    return {
        "foreground.first": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "foreground.class": rows["class"][kept].astype(np.int64),
        "foreground.voxels": rows["voxels"][kept].astype(np.int64),
        "foreground.place": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "foreground.coordinates": np.concatenate([np.zeros((0, 3), dtype), *pieces]),
    }


def class_voxels(store: Store, index: VolumeIndex) -> tuple[npt.NDArray[np.int64], ...]:
    """Voxels of each class of each label volume, without the coordinates: little to read for any number of volumes.

    Returns:
        Three arrays (rows,), sorted by place and class: place of the volume in ``index``, class, and its number of voxels.
    """
    table = store.table("c", index.info.id, "foreground")
    rows, kept, volumes = _rows_of(table, index, {str(obs_id): i for i, obs_id in enumerate(index.obs_ids)})
    return volumes, rows["class"][kept].astype(np.int64), rows["voxels"][kept].astype(np.int64)


def _rows_of(
    table: Any, index: VolumeIndex, number: Mapping[str, int]
) -> tuple[Mapping[str, npt.NDArray[Any]], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All rows of the table; which of them belong to the volumes of ``number``, by (number, class); and the number of each of those."""
    rows = table.read(["obs_id", "class", "voxels"])
    # The rows that belong to a volume are those of the commit that wrote it: a volume that was replaced may have lost a class.
    commits = {str(obs_id): int(commit) for obs_id, commit in zip(index.obs_ids, index.commits, strict=True)}
    kept = np.array(
        [
            row
            for row, (obs_id, commit) in enumerate(zip(rows["obs_id"].tolist(), rows["commit"].tolist(), strict=True))
            if obs_id in number and commits.get(obs_id) == commit
        ],
        dtype=np.int64,
    )
    volumes = np.array([number[obs_id] for obs_id in rows["obs_id"][kept].tolist()], dtype=np.int64)
    order = np.lexsort((rows["class"][kept], volumes))
    return rows, kept[order], volumes[order]


def _coordinates(
    table: Any, every: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], dtype: Any
) -> list[npt.NDArray[Any]]:
    """The coordinates of the rows ``wanted``, read in stretches of the table's rows ``every``."""
    place = {row: i for i, row in enumerate(wanted.tolist())}
    result: list[npt.NDArray[Any]] = [np.zeros((0, 3), dtype)] * len(place)
    ordered = np.sort(every)
    for start in range(0, len(ordered), _ROWS):
        stretch = ordered[start : start + _ROWS]
        if not any(row in place for row in stretch.tolist()):
            continue
        read = table.read(["coordinates"], rows=(int(stretch[0]), int(stretch[-1])))
        for row, data in zip(read["row"].tolist(), read["coordinates"].tolist(), strict=True):
            if row in place:
                result[place[row]] = np.frombuffer(data, "<i4").reshape(-1, 3).astype(dtype)
    return result


def foreground_of(columns: Mapping[str, npt.NDArray[Any]], volume: int) -> dict[int, tuple[int, npt.NDArray[Any]]]:
    """The index of one volume: by class its number of voxels and coordinates (n, 3)."""
    first, last = columns["foreground.first"][volume : volume + 2].tolist()
    classes = columns["foreground.class"][first:last].tolist()
    voxels = columns["foreground.voxels"][first:last].tolist()
    places = columns["foreground.place"][first : last + 1].tolist()
    coordinates = columns["foreground.coordinates"]
    return {value: (voxels[i], coordinates[places[i] : places[i + 1]]) for i, value in enumerate(classes)}
