"""Small frozen values that every layer passes around: boxes, locators of volumes, sample keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ShapeError

__all__ = ["Box", "PatchKey", "SampleKey", "SliceKey", "VolumeKey", "VolumeRef"]

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop`` on the axes (x, y, z) of a stored volume.

    It may reach over the border of the volume: such voxels are padded when it is read.

    Attributes:
        start: First voxel on each axis; may be negative.
        stop: One past the last voxel on each axis.
    """

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        # Written out: a batch makes hundreds of boxes.
        if len(self.start) != 3 or len(self.stop) != 3:
            raise ShapeError(f"a box has 3 axes (x, y, z), got start={self.start} and stop={self.stop}")
        a, b, c = self.start
        d, e, f = self.stop
        whole = type(a) is type(b) is type(c) is type(d) is type(e) is type(f) is int
        if not whole or type(self.start) is not tuple or type(self.stop) is not tuple:
            # numpy integers would be stored as they are and make keys compare and pickle differently
            a, b, c, d, e, f = int(a), int(b), int(c), int(d), int(e), int(f)
            object.__setattr__(self, "start", (a, b, c))
            object.__setattr__(self, "stop", (d, e, f))
        if d <= a or e <= b or f <= c:
            raise ShapeError(f"a box needs start < stop on every axis, got start={self.start} and stop={self.stop}")

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """The box that covers a volume of spatial ``shape`` (X, Y, Z)."""
        return cls((0, 0, 0), (int(shape[0]), int(shape[1]), int(shape[2])))

    @classmethod
    def at(cls, start: Sequence[int], size: Sequence[int]) -> Box:
        """The box of ``size`` (X, Y, Z) voxels whose first voxel is ``start``."""
        x, y, z = (int(v) for v in start)
        return cls((x, y, z), (x + int(size[0]), y + int(size[1]), z + int(size[2])))

    @classmethod
    def around(cls, boxes: Sequence[Box]) -> Box:
        """The smallest box that holds all ``boxes``."""
        x, y, z = (min(values) for values in zip(*[box.start for box in boxes], strict=True))
        u, v, w = (max(values) for values in zip(*[box.stop for box in boxes], strict=True))
        return cls((x, y, z), (u, v, w))

    @property
    def shape(self) -> Triple:
        """Number of voxels on each axis (X, Y, Z)."""
        (a, b, c), (d, e, f) = self.start, self.stop
        return (d - a, e - b, f - c)

    def intersection(self, other: Box) -> Box:
        """What two boxes that overlap have in common."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, stop)  # type: ignore[arg-type]

    def clip(self, shape: Sequence[int]) -> Box | None:
        """The part inside a volume of spatial ``shape``, or None when there is none."""
        (a, b, c), (d, e, f) = self.start, self.stop
        x, y, z = shape[:3]
        if a >= 0 and b >= 0 and c >= 0 and d <= x and e <= y and f <= z:
            return self
        if a >= x or b >= y or c >= z or d <= 0 or e <= 0 or f <= 0:
            return None
        return Box((max(a, 0), max(b, 0), max(c, 0)), (min(d, x), min(e, y), min(f, z)))

    def holds(self, other: Box) -> bool:
        """Whether no voxel of ``other`` is outside."""
        (a, b, c), (d, e, f) = self.start, self.stop
        (u, v, w), (x, y, z) = other.start, other.stop
        return a <= u and b <= v and c <= w and x <= d and y <= e and z <= f

    def slices(self, origin: Triple = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Index that cuts this box out of an array whose first voxel is ``origin``."""
        (a, b, c), (d, e, f), (x, y, z) = self.start, self.stop, origin
        return (slice(a - x, d - x), slice(b - y, e - y), slice(c - z, f - z))

    def affine(self, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The affine (4, 4) of this box: voxel index in the box to RAS mm, given the affine of the volume."""
        result = np.array(affine, dtype=np.float64)
        result[:3, 3] += result[:3, :3] @ np.asarray(self.start, dtype=np.float64)
        return result

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """Everything needed to read one stored volume, without opening it. Small, hashable and picklable.

    Attributes:
        uri: Where the voxel array lies.
        shape: (X, Y, Z) or (X, Y, Z, T) in voxels.
        dtype: Name of the stored dtype, such as ``"int16"``.
        slope: Multiplied to the stored values (NIfTI ``scl_slope``).
        intercept: Added after ``slope`` (NIfTI ``scl_inter``).
        obs_id: Id of the volume in its collection.
        obs_subject_id: Id of the subject.
        collection: Name of the collection.
        tile: Extents (x, y, z) of the array's tiles in voxels, where they are known: reads of the same tiles are then joined.
        times: Of a 4D volume, the time points that are meant, in this order; None: all. The others are not read.
    """

    uri: str
    shape: tuple[int, ...]
    dtype: str
    slope: float = 1.0
    intercept: float = 0.0
    obs_id: str = ""
    obs_subject_id: str = ""
    collection: str = ""
    tile: Triple | None = None
    times: tuple[int, ...] | None = None

    @property
    def spatial_shape(self) -> Triple:
        """(X, Y, Z) in voxels."""
        return (self.shape[0], self.shape[1], self.shape[2])

    @property
    def channels(self) -> int:
        """Number of time points that a read gives (T); 1 for a 3D volume."""
        return len(self.time_points)

    @property
    def time_points(self) -> Sequence[int]:
        """The time points that a read gives; 0 for a 3D volume."""
        if self.times is not None:
            return self.times
        return range(self.shape[3] if len(self.shape) == 4 else 1)

    @property
    def scaled(self) -> bool:
        """Whether the stored values have to be multiplied or shifted."""
        return not (self.slope == 1.0 and self.intercept == 0.0)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """dtype of the volume's values as nibabel gives them: the stored one, or float64 when they are scaled."""
        return np.dtype(np.float64) if self.scaled else np.dtype(self.dtype)

    def describe(self) -> str:
        """The volume in words, for error messages."""
        return f"subject {self.obs_subject_id!r}, collection {self.collection!r}, volume {self.obs_id!r} ({self.uri})"


@dataclass(frozen=True, slots=True)
class VolumeKey:
    """One visit of a whole volume.

    Attributes:
        volume: Position of the volume in its dataset.
        draw: Which visit of this volume in this epoch; samplers number repeated visits.
        epoch: 0 for evaluation.
    """

    volume: int
    draw: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class PatchKey:
    """One patch of a volume; ``draw`` numbers the volume's patches within the epoch. See :class:`VolumeKey`."""

    volume: int
    draw: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class SliceKey:
    """One slice of a volume.

    Attributes:
        volume: Position of the volume in its dataset.
        plane: ``"axial"``, ``"sagittal"`` or ``"coronal"``.
        index: Number of the slice along the array axis that is closest to the plane's normal.
        draw: Which visit of this slice in this epoch.
        epoch: 0 for evaluation.
    """

    volume: int
    plane: str
    index: int
    draw: int = 0
    epoch: int = 0


SampleKey = VolumeKey | PatchKey | SliceKey
