"""Three planes through a volume, as a radiologist hangs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.orientation import turn
from radioloader.geometry import plane_axis
from radioloader.overview.measure import VolumeVoxels
from radioloader.storage.catalog import occupied_slices

__all__ = ["Plane", "middle_of", "planes"]

_DOWN = "LPI"
"""Turned so, rows and columns of each plane grow to the patient's left, back and feet: columns to the right, rows downwards."""
_NORMALS = ("sagittal", "coronal", "axial")
"""The planes across the axes of :data:`_DOWN`."""
_LETTERS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane. Rows run downwards, columns to the right.

    Attributes:
        name: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        image: (rows, columns) values; None of a label without image.
        label: (rows, columns) classes; None where there is no label.
        size_mm: Height and width.
        letters: Anatomical directions at the left, right, upper and lower edge.
    """

    name: str
    image: npt.NDArray[Any] | None
    label: npt.NDArray[Any] | None
    size_mm: tuple[float, float]
    letters: tuple[str, str, str, str]


def middle_of(occupied: bytes | None, shape: Sequence[int]) -> tuple[int, int, int]:
    """The middle of what is not empty in a volume of spatial ``shape``, by its column ``occupied``; of all of it where that is unknown."""
    middle = []
    for axis in range(3):
        filled = np.flatnonzero(occupied_slices(occupied, shape, axis)) if occupied else np.zeros(0, np.int64)
        middle.append(int(filled[0] + filled[-1]) // 2 if filled.size else int(shape[axis]) // 2)
    return middle[0], middle[1], middle[2]


def planes(
    image: VolumeVoxels | None,
    label: VolumeVoxels | None,
    *,
    axcodes: str,
    spacing: Sequence[float],
    focus: Sequence[int],
) -> list[Plane]:
    """The axial, coronal and sagittal plane (those of the grid that are closest to them) through one voxel.

    Radiological convention: the patient's left is at the right of the axial and the coronal plane, the sagittal one is seen from the
    left, and the head or the front is up.

    Args:
        image: The image; None for a label alone.
        label: A label on the same grid; None for an image alone.
        axcodes: Orientation of the stored axes.
        spacing: mm along the stored axes.
        focus: Index (x, y, z) of the voxel.

    Raises:
        ReadError: An array is missing, damaged or out of reach.
    """
    stored = [plane_axis(axcodes, name) for name in _NORMALS]
    result = []
    for axis, name in enumerate(_NORMALS):
        cut: list[npt.NDArray[Any] | None] = [None, None]
        for place, voxels in enumerate((image, label)):
            if voxels is not None:
                thin = voxels.plane(stored[axis], int(focus[stored[axis]]))
                cut[place] = np.squeeze(turn(thin, axcodes, _DOWN), axis=axis).T
        rows, columns = next(part.shape for part in cut if part is not None)
        across, down = (stored[other] for other in range(3) if other != axis)
        size = (rows * float(spacing[down]), columns * float(spacing[across]))
        result.append(Plane(name, cut[0], cut[1], size, _LETTERS[name]))
    return result[::-1]
