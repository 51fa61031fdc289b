"""What takes reading voxels: percentiles of the values, and planes through a volume. Memory is bounded for volumes of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.storage.reader import VolumeReader
from radioloader.types import Box, VolumeRef

__all__ = ["PERCENTILES", "SAMPLE", "WHOLE", "Measured", "VolumeVoxels", "focus_of", "measure"]

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
WHOLE = 4 * 2**20
"""Voxels up to which a volume is read whole; of larger ones as many are sampled."""
SAMPLE = 4096
"""Values of each volume that the histogram of its collection is made of."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one volume.

    Attributes:
        percentiles: Those of :data:`PERCENTILES`, over finite voxels as numpy gives them; empty where no voxel is finite.
        sample: At most :data:`SAMPLE` of the values, evenly spread, float32 (float64 where they would not fit).
        voxels: How many voxels that is from.
    """

    percentiles: tuple[float, ...]
    sample: npt.NDArray[np.floating[Any]]
    voxels: int


class VolumeVoxels:
    """Voxels of one volume; of a 4D one its first time point. Read whole where it is small, else by the parts that are asked for.

    Args:
        reader: Reads them.
        ref: The volume.
        tile: Extents (x, y, z) of its tiles in voxels.
    """

    def __init__(self, reader: VolumeReader, ref: VolumeRef, tile: tuple[int, int, int]) -> None:
        # As if there were one time point: the others are neither read nor decoded.
        self._ref = replace(ref, shape=(*ref.spatial_shape, 1)) if len(ref.shape) == 4 else ref
        self._reader, self._tile = reader, tile
        self.shape = ref.spatial_shape
        whole = prod(self.shape) <= WHOLE
        self._whole = self.read(Box.whole(self.shape)) if whole else None

    def read(self, box: Box) -> npt.NDArray[Any]:
        """The voxels (X, Y, Z) of a box."""
        values = self._reader.read(self._ref, box)
        return values[0] if values.ndim == 4 else values

    def plane(self, axis: int, index: int) -> npt.NDArray[Any]:
        """The voxels across a stored axis, (X, Y, Z) with 1 on that axis."""
        start, stop = [0, 0, 0], list(self.shape)
        start[axis], stop[axis] = index, index + 1
        box = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
        return self.read(box) if self._whole is None else self._whole[box.slices()]

    def values(self) -> npt.NDArray[Any]:
        """(n,) all voxels of a small volume, or those of as many whole tiles as :data:`WHOLE` allows."""
        if self._whole is not None:
            return self._whole.ravel()
        return np.concatenate([self.read(box).ravel() for box in self._sampled()])

    def blocks(self) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
        """All voxels, box by box, each of at most :data:`WHOLE` voxels or one layer of tiles."""
        if self._whole is not None:
            yield Box.whole(self.shape), self._whole
            return
        layer = self.shape[0] * self.shape[1] * self._tile[2]
        depth = self._tile[2] * max(1, WHOLE // layer)
        for z in range(0, self.shape[2], depth):
            box = Box((0, 0, z), (self.shape[0], self.shape[1], min(z + depth, self.shape[2])))
            yield box, self.read(box)

    def _sampled(self) -> list[Box]:
        starts = list(product(*[range(0, n, extent) for n, extent in zip(self.shape, self._tile, strict=True)]))
        number = min(len(starts), max(1, WHOLE // prod(self._tile)))
        # One out of each of as many stretches of tiles; the same ones every time, but not all in one column.
        edges = np.linspace(0, len(starts), number + 1)
        inside = np.random.default_rng(0).random(number)
        chosen = (edges[:-1] + inside * np.diff(edges)).astype(np.int64).tolist()
        boxes = [Box.at(starts[place], self._tile).clip(self.shape) for place in chosen]
        return [box for box in boxes if box is not None]


def measure(voxels: VolumeVoxels) -> Measured:
    """Percentiles and a sample of a volume's values.

    Raises:
        ReadError: The array is missing, damaged or out of reach.
    """
    values = voxels.values()
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        values = values[finite]
    if not values.size:
        return Measured((), np.zeros(0, np.float32), 0)
    chosen = np.linspace(0, values.size - 1, min(SAMPLE, values.size)).round().astype(np.int64)
    sample = values[chosen]
    fits = sample.dtype.kind != "f" or np.abs(sample).max() <= np.finfo(np.float32).max
    return Measured(_percentiles(values), sample.astype(np.float32 if fits else np.float64), values.size)


def _percentiles(values: npt.NDArray[Any]) -> tuple[float, ...]:
    """As ``np.percentile`` gives them; integers of up to 16 bits are counted, which takes a fifth of the time of partitioning them."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return tuple(float(v) for v in np.percentile(values, PERCENTILES))
    lowest = int(values.min())
    below = np.cumsum(np.bincount(values.astype(np.int64) - lowest))
    places = np.array(PERCENTILES) / 100 * (values.size - 1)
    first = np.floor(places)
    a, b = (np.searchsorted(below, np.minimum(first + step, values.size - 1), side="right") + lowest for step in (0, 1))
    share = places - first
    return tuple(np.where(share < 0.5, a + (b - a) * share, b - (b - a) * (1 - share)).tolist())


def focus_of(label: VolumeVoxels) -> tuple[int, int, int] | None:
    """The index on each stored axis at which the plane across it shows most of a label; None of an empty one."""
    areas = [np.zeros(n, np.int64) for n in label.shape]
    for box, values in label.blocks():
        inside = values != 0
        for axis, part in enumerate(box.slices()):
            others = tuple(other for other in range(3) if other != axis)
            areas[axis][part] += np.count_nonzero(inside, axis=others)
    if not areas[0].any():
        return None
    # The middle one of equal ones: the first plane of a box would show its face.
    x, y, z = (int(np.median(np.flatnonzero(area == area.max()))) for area in areas)
    return x, y, z
