"""Volumes and affines of which DICOM is made: the known answers.

Arrays are (X, Y, Z): axis 0 along the columns of a frame, axis 1 along its rows, axis 2 along the normal (row x column direction). Affines
are (4, 4), voxel index to RAS mm, and right-handed: with a negative determinant no reader could give the slices in this order.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

__all__ = ["TURNS", "Array", "Plane", "fit", "plane_of", "real_volume", "rescaled", "rotation", "tilt"]

TURNS = {
    "axial": (0, 0, 0),
    "oblique": (20, -10, 5),
    "sagittal": (0, 90, 0),
    "coronal": (90, 0, 0),
    "prone": (0, 0, 180),
}
"""Degrees about x, y and z, by what an axial volume becomes."""

Array = npt.NDArray[Any]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From RAS to LPS and back."""


@cache
def _template() -> tuple[Array, Array]:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        pytest.skip("needs the brain in nilearn's wheel: pip install nilearn")
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    image = nib.load(Path(spec.origin).parent / "datasets" / "data" / name)
    start, step, shape = np.array([26, 30, 30]), np.array([4, 5, 6]), (40, 36, 24)
    part = tuple(slice(a, a + s * n, s) for a, s, n in zip(start, step, shape, strict=True))
    x, y, z = np.ogrid[:40, :36, :24]
    # The template is symmetric; the ramps tell left from right, and every slice from its neighbour where there is only air.
    voxels = (np.asarray(image.dataobj)[part].astype(np.int16) * 6 - 300 + 2 * x + y + 4 * z).astype(np.int16)
    affine = image.affine @ nib.affines.from_matvec(np.diag(step), start)
    affine[:3, :3] *= [0.5, 0.3, 0.7]
    # As a scanner has it: rows from right to left, columns from front to back.
    affine = affine @ nib.affines.from_matvec(np.diag([-1, -1, 1]), [39, 35, 0])
    voxels = np.ascontiguousarray(voxels[::-1, ::-1])
    voxels.flags.writeable = affine.flags.writeable = False
    return voxels, affine


def real_volume(shape: tuple[int, int, int] = (40, 36, 24)) -> tuple[Array, Array]:
    """A real T1w brain, int16 (12 bits, signed), and its affine: axial, spaced 2.0 x 1.5 x 4.2 mm. A smaller ``shape`` is its middle."""
    voxels, affine = _template()
    start = [(n - m) // 2 for n, m in zip(voxels.shape, shape, strict=True)]
    part = voxels[tuple(slice(a, a + m) for a, m in zip(start, shape, strict=True))]
    return part.copy(), affine @ nib.affines.from_matvec(np.eye(3), start)


def rotation(degrees: Sequence[float]) -> Array:
    """(4, 4) turn about x, then y, then z, in degrees: ``rotation((20, -10, 5)) @ affine`` is oblique."""
    a, b, c = np.deg2rad(np.asarray(degrees, float))
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    turned: Array = nib.affines.from_matvec(np.array(about_z) @ np.array(about_y) @ np.array(about_x))
    return turned


def tilt(affine: Array, degrees: float) -> Array:
    """The affine of the same slices with a tilted gantry: the frames turn about their rows, the table moves as before, so it is sheared."""
    axis = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    down, angle = affine[:3, 1], np.deg2rad(degrees)
    sheared = affine.copy()
    # Rodrigues; the rows are perpendicular to the axis.
    sheared[:3, 1] = down * np.cos(angle) + np.cross(axis, down) * np.sin(angle)
    return sheared


def fit(voxels: Array, bits: int, signed: bool) -> Array:
    """The voxels stretched over everything that ``bits`` can hold: lowest and highest value occur."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = voxels.astype(np.float64)
    spread = (values - values.min()) / (values.max() - values.min())
    kind = f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16 if bits <= 16 else 32}"
    return np.rint(low + spread * (high - low)).astype(kind)


def rescaled(voxels: Array, slope: float | Sequence[float] = 1.0, intercept: float | Sequence[float] = 0.0) -> Array:
    """float64 values of stored voxels (X, Y, Z[, T]); slope and intercept may differ from slice to slice."""
    extra = (1,) * (voxels.ndim - 3)
    a, b = (np.asarray(value, np.float64).reshape(-1, *extra) for value in (slope, intercept))
    values: Array = voxels * a + b
    return values


@dataclass(frozen=True)
class Plane:
    """What DICOM says of the frames of a volume, in LPS mm."""

    orientation: tuple[float, ...]
    """ImageOrientationPatient: direction of growing column index (along a row), then of growing row index."""
    spacing: tuple[float, float]
    """PixelSpacing: between rows, then between columns."""
    origin: Array
    step: Array
    normal: Array

    def position(self, k: int, shift: float = 0.0) -> Array:
        """ImagePositionPatient of slice ``k``, moved by ``shift`` mm along the normal."""
        place: Array = self.origin + k * self.step + shift * self.normal
        return place

    @property
    def gap(self) -> float:
        """Distance of two slices along the normal, mm."""
        return float(self.step @ self.normal)


def plane_of(affine: Array) -> Plane:
    lps = LPS @ affine
    columns, rows = np.linalg.norm(lps[:3, 0]), np.linalg.norm(lps[:3, 1])
    row, column = lps[:3, 0] / columns, lps[:3, 1] / rows
    if abs(row @ column) > 1e-6:
        raise ValueError("DICOM frames have rows at right angles to their columns; the affine has not")
    normal = np.cross(row, column)
    if lps[:3, 2] @ normal <= 0:
        raise ValueError("the slices run against the normal: turn axis 2 of voxels and affine")
    return Plane((*row, *column), (float(rows), float(columns)), lps[:3, 3], lps[:3, 2], normal)
