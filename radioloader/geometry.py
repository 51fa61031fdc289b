"""Geometry of voxel grids: affines map voxel index (x, y, z) to RAS+ millimetres, nibabel's convention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.config import SliceOrientation
from radioloader.errors import ConfigError

__all__ = [
    "GRID_TOLERANCE_MM",
    "PLANES",
    "affine_problem",
    "axcodes",
    "grid_distance",
    "plane_axis",
    "plane_name",
    "spacing",
]

Affine = npt.NDArray[np.float64]

GRID_TOLERANCE_MM = 0.05
"""How far apart the voxels of one grid may lie, where nobody says otherwise: affines are rounded in files."""

PLANES = {"sagittal": "LR", "coronal": "PA", "axial": "IS"}
"""Anatomical planes and the two directions of their normal."""


def affine_problem(affine: npt.ArrayLike) -> str | None:
    """What makes ``affine`` (4, 4) unusable as a map from voxels to mm, in words; None when it is fine."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        return f"the affine has shape {matrix.shape}, expected (4, 4)"
    if not np.isfinite(matrix).all():
        return f"the affine holds values that are not finite: {matrix[:3].tolist()}"
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not np.isfinite(lengths).all():
        return f"the affine holds values that are too large for mm: {matrix[:3].tolist()}"
    # Relative to the voxel size, so that microscopy and mm-scale grids are judged alike.
    if (lengths == 0).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        return f"the affine is singular (its axes do not span space): {matrix[:3, :3].tolist()}"
    return None


def spacing(affine: npt.ArrayLike) -> tuple[float, float, float]:
    """Distance between voxel centres along x, y and z, in mm."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def axcodes(affine: npt.ArrayLike) -> str:
    """Anatomical direction in which each array axis grows, such as ``"RAS"``; the closest one for oblique grids."""
    from nibabel.orientations import aff2axcodes

    return "".join(str(code) for code in aff2axcodes(np.asarray(affine, dtype=np.float64)))


def plane_name(plane: str | SliceOrientation) -> str:
    """The name of an anatomical plane.

    Args:
        plane: ``"axial"``, ``"sagittal"`` or ``"coronal"``, or the :class:`~radioloader.SliceOrientation` of that name.

    Raises:
        ConfigError: No such plane.
    """
    name = plane.value if isinstance(plane, SliceOrientation) else plane
    if not isinstance(name, str) or name not in PLANES:
        raise ConfigError(f"plane={name!r} is not one of {', '.join(map(repr, sorted(PLANES)))}")
    return name


def plane_axis(codes: str, plane: str | SliceOrientation) -> int:
    """The array axis (0, 1 or 2) that is closest to the normal of an anatomical plane.

    Args:
        codes: The volume's :func:`axcodes`.
        plane: See :func:`plane_name`.

    Raises:
        ConfigError: No such plane.
    """
    normal = PLANES[plane_name(plane)]
    return next(axis for axis, code in enumerate(codes) if code in normal)


def grid_distance(a: Affine, b: Affine, shape: Sequence[int]) -> float:
    """Greatest distance in mm between the places that two affines give to one voxel of a grid of ``shape`` (X, Y, Z).

    Both maps are affine, so the greatest distance is found at a corner.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*[(0, int(n) - 1) for n in shape[:3]])])
    difference: Any = corners @ (np.asarray(a) - np.asarray(b)).T
    return float(np.linalg.norm(difference[:, :3], axis=1).max())
