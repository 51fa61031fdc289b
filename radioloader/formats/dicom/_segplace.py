"""Where the frames of a SEG lie on the voxel grid of an image.

Frames are placed one by one, by their own position, orientation and pixel spacing: it takes nothing for granted about which frames are
there, in which order, or whether they would make a volume of their own, and so works the same for sparse, cropped, turned and flipped
segmentations, and for images whose slices are sheared or at uneven distances. highdicom's volumes refuse the last two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError, GridMismatchError
from radioloader.formats.dicom._segheader import SegFrame
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.geometry import spacing

__all__ = ["Lattice", "Placement"]

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placement:
    """The voxels of a frame: pixel (row, column) is voxel ``start + column * signs[0] * e[axes[0]] + row * signs[1] * e[axes[1]]``.

    Attributes:
        start: Voxel index of the first pixel, which may lie outside of the grid.
        axes: Grid axes along a row (growing column index) and along a column.
        signs: 1 or -1: whether the voxel index grows or falls along these.
    """

    start: tuple[int, int, int]
    axes: tuple[int, int]
    signs: tuple[int, int]

    def inside(self, shape: Sequence[int]) -> bool:
        """Whether the plane of the frame is one of a grid of ``shape`` (X, Y, Z)."""
        through = 3 - sum(self.axes)
        return 0 <= self.start[through] < shape[through]

    def put(self, frame: npt.NDArray[Any], out: npt.NDArray[Any], background: Any = 0) -> int:
        """Write the pixels of ``frame`` (rows, columns) that are not ``background`` to ``out`` (X, Y, Z), and leave all others.

        Returns:
            How many of these pixels lie outside of ``out``.
        """
        across, down = self.axes
        through = 3 - across - down
        columns, x = _overlap(self.start[across], self.signs[0], frame.shape[1], out.shape[across])
        rows, y = _overlap(self.start[down], self.signs[1], frame.shape[0], out.shape[down])
        part = frame[rows, columns] if self.inside(out.shape) else frame[:0]
        missed = 0
        if part.size < frame.size:
            missed = int(np.count_nonzero(frame != background)) - int(np.count_nonzero(part != background))
        if part.size:
            place: list[Any] = [self.start[through]] * 3
            place[across], place[down] = x, y
            target = out[tuple(place)]  # its axes are the grid's, in their order
            part = part.T if across < down else part
            np.copyto(target, part, where=part != background)
        return missed


def _overlap(start: int, sign: int, count: int, size: int) -> tuple[slice, slice]:
    """Pixels of a line of ``count`` that begins at ``start`` and lie within 0 ... ``size``, and the voxels they fall on."""
    if sign > 0:
        first, last = max(0, -start), min(count, size - start)
    else:
        first, last = max(0, start - size + 1), min(count, start + 1)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    if sign > 0:
        return slice(first, last), slice(start + first, start + last)
    low = start - (last - 1)
    # Turned round here, so that the voxels can be a plain range.
    return slice(last - 1, first - 1 if first else None, -1), slice(low, low + last - first)


class Lattice:
    """The voxels of an image, for placing frames on them.

    Args:
        grid: The image's grid.
        tolerance_mm: How far, in mm, a pixel's centre may lie from the voxel's; 0.4 of the smallest voxel spacing at most.
        path: The SEG, for messages.
    """

    def __init__(self, grid: ImageGrid, tolerance_mm: float, path: str | os.PathLike[str]) -> None:
        self.grid, self._path = grid, path
        self._affine = np.asarray(grid.affine, np.float64)
        self._axes, self._corner = self._affine[:3, :3], self._affine[:3, 3]
        self._origins = np.asarray(grid.origins, np.float64).reshape(-1, 3)
        self._inverse = np.linalg.inv(self._axes)
        self._tolerance = min(tolerance_mm, 0.4 * min(spacing(self._affine)))
        normal = np.cross(self._axes[:, 0], self._axes[:, 1])
        self._normal = normal / np.linalg.norm(normal)
        self._in_plane = np.linalg.pinv(self._axes[:, :2])
        ideal = self._corner + np.arange(grid.shape[2])[:, None] * self._axes[:, 2]
        # A single slice does not say how far away the next one would be.
        self._regular = grid.shape[2] > 1 and float(np.abs(self._origins - ideal).max()) <= self._tolerance
        self._slice_of = {frame: k for k, frames in enumerate(grid.slices) for frame in frames}
        self._slices_of: dict[str, set[int]] = {}
        for (uid, _), k in self._slice_of.items():
            self._slices_of.setdefault(uid, set()).add(k)

    def place(self, frame: SegFrame, rows: int, columns: int) -> Placement:
        """The voxels of a frame of ``rows`` x ``columns`` pixels.

        Its position decides; the images that it refers to are asked only where it has none.

        Raises:
            GridMismatchError: Its pixels do not lie on the image's voxels.
            FormatError: Nothing says where it lies.
        """
        if frame.position is None or frame.across is None or frame.down is None:
            return self._by_source(frame, rows, columns)
        steps = np.stack([frame.across, frame.down], axis=1)
        (across, down), signs = _closest(self._inverse @ steps)
        drift = steps - self._axes[:, [across, down]] * signs
        start: list[int]
        if {across, down} == {0, 1}:
            start, off = self._in_slices(frame.position)
        elif self._regular:
            start, off = self._in_volume(frame.position)
        else:
            raise GridMismatchError(
                f"{self._path}: frame {frame.index + 1} cuts across the slices of the image, which are not evenly spaced; give a "
                "segmentation with the image's own slices"
            )
        ends = [off + a * (columns - 1) * drift[:, 0] + b * (rows - 1) * drift[:, 1] for a in (0, 1) for b in (0, 1)]
        distance = max(float(np.linalg.norm(end)) for end in ends)
        if not distance <= self._tolerance:
            pixel = " x ".join(f"{np.linalg.norm(step):.4g}" for step in steps.T)
            voxel = " x ".join(f"{size:.4g}" for size in spacing(self._affine))
            raise GridMismatchError(
                f"{self._path}: the segmentation does not lie on the image's voxels: pixels of frame {frame.index + 1} are up to "
                f"{distance:.3g} mm off (allowed: {self._tolerance:.3g} mm). Its pixels are {pixel} mm, the image's voxels {voxel} mm. "
                "Give the image it was made on, or resample it to this one"
            )
        return Placement((start[0], start[1], start[2]), (across, down), (int(signs[0]), int(signs[1])))

    def _in_slices(self, position: Vector) -> tuple[list[int], Vector]:
        """Voxel of a point of a frame that is parallel to the slices, and the distance (3,) in mm that is left."""
        heights = (self._origins - position) @ self._normal
        k = int(np.abs(heights).argmin())
        if abs(heights[k]) > self._tolerance:
            if self._regular:
                return self._in_volume(position)
            if heights.min() < 0 < heights.max():
                return [0, 0, k], -heights[k] * self._normal
            return [0, 0, -1], np.zeros(3)  # beyond the first or the last slice; how far does not matter
        offset = position - self._origins[k]
        i, j = np.rint(self._in_plane @ offset)
        return [int(i), int(j), k], offset - self._axes[:, :2] @ [i, j]

    def _in_volume(self, position: Vector) -> tuple[list[int], Vector]:
        """Voxel of any point of a regular volume, and the distance (3,) in mm that is left."""
        offset = position - self._corner
        index = np.rint(self._inverse @ offset)
        return [int(n) for n in index], offset - self._axes @ index

    def _by_source(self, frame: SegFrame, rows: int, columns: int) -> Placement:
        """A frame without a position is a pixel-for-pixel mask of the image frames that it refers to."""
        found = set()
        for uid, number in frame.sources:
            slices = self._slices_of.get(uid, set()) if number is None else {self._slice_of.get((uid, number), -1)}
            found |= slices - {-1}
        if not frame.sources:
            raise FormatError(
                f"{self._path}: frame {frame.index + 1} has neither a position (PlanePositionSequence, PlaneOrientationSequence, "
                "PixelMeasuresSequence) nor a source image"
            )
        if len(found) != 1 or (rows, columns) != (self.grid.shape[1], self.grid.shape[0]):
            raise GridMismatchError(
                f"{self._path}: frame {frame.index + 1} has no position, and its {rows} x {columns} pixels refer to {len(found)} slices of "
                f"the image of {self.grid.shape[1]} x {self.grid.shape[0]}; expected one slice of the same size"
            )
        return Placement((0, 0, found.pop()), (0, 1), (1, 1))


def _closest(steps: Vector) -> tuple[tuple[int, int], Vector]:
    """The two different grid axes that are closest to the columns of ``steps`` (3, 2; in voxels), and their signs (2,)."""
    sizes = np.abs(steps)
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    across, down = max(pairs, key=lambda pair: sizes[pair[0], 0] + sizes[pair[1], 1])
    signs = np.where(steps[[across, down], [0, 1]] < 0, -1.0, 1.0)
    return (across, down), signs
