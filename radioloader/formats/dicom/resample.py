"""Stacks brought to an upright grid of even spacing: each slice shifted in its plane, then interpolated between slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError
from radioloader.formats.dicom.geometry import LPS_TO_RAS, normal_of
from radioloader.formats.dicom.grid import ImageGrid

__all__ = ["resample_stack", "target_grid"]

_FREE_VOXELS, _GROWTH = 2**26, 8
"""A grid may have _FREE_VOXELS, or _GROWTH times the voxels of the stack."""
_WHOLE = 1e-3
"""Of a pixel or a slice: what is closer to a whole number is rounding."""


def target_grid(grid: ImageGrid, step: float, orientation: Sequence[float]) -> ImageGrid:
    """The rectangular grid that holds all slices of a stack: the same pixels in the plane, slices ``step`` mm apart along the normal from
    the first to at most the last one.

    Args:
        grid: Of the stack; its ``origins`` tell where the slices are.
        step: Distance of slices in mm.
        orientation: ImageOrientationPatient.

    Raises:
        FormatError: It would be far larger than the stack: its slices are not neighbours.
    """
    normal = LPS_TO_RAS @ normal_of(orientation)
    in_plane = grid.affine[:3, :2]
    shifts = _shifts(grid, normal)
    low, high = np.floor(shifts.min(axis=0) + _WHOLE), np.ceil(shifts.max(axis=0) - _WHOLE)
    offsets = (grid.origins - grid.origins[0]) @ normal
    count = math.floor(offsets[-1] / step + _WHOLE) + 1
    x, y, depth = grid.shape
    wide = (x + int(high[0] - low[0]), y + int(high[1] - low[1]), count)
    if math.prod(wide) > max(_FREE_VOXELS, _GROWTH * x * y * depth):
        raise FormatError(
            f"a grid of {wide[0]} x {wide[1]} x {wide[2]} voxels would be needed to resample {x} x {y} x {depth}: its slices are not "
            "neighbours; choose on_irregular='split' (--on-irregular), or on_tilt='keep' (--on-tilt)"
        )
    affine = np.eye(4)
    affine[:3, :2] = in_plane
    affine[:3, 2] = normal * step
    affine[:3, 3] = grid.origins[0] + in_plane @ low
    origins = affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 2]
    above = np.searchsorted(offsets, np.arange(count) * step).clip(1, max(depth - 1, 1))
    below_is_nearer = (
        np.arange(count) * step - offsets[above - 1] <= offsets[above.clip(max=depth - 1)] - np.arange(count) * step
    )
    nearest = np.where(below_is_nearer, above - 1, above)
    return replace(
        grid, shape=wide, affine=affine, origins=origins, slices=tuple(grid.slices[int(place)] for place in nearest)
    )


def _shifts(grid: ImageGrid, normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(Z, 2) by how many pixels along x and y each slice lies off the line along the normal through the first one."""
    away = grid.origins - grid.origins[0]
    across = away - (away @ normal)[:, None] * normal
    shifts: npt.NDArray[np.float64] = across @ np.linalg.pinv(grid.affine[:3, :2]).T
    return shifts


def resample_stack(voxels: npt.NDArray[Any], source: ImageGrid, target: ImageGrid, fill: float) -> npt.NDArray[Any]:
    """Voxels of a stack on the grid that :func:`target_grid` made for it, linearly interpolated.

    Args:
        voxels: (X, Y, Z[, T]); whole numbers stay whole (rounded).
        source: Where they lie, by slice.
        target: The grid to bring them to.
        fill: Value where no slice reaches.

    Returns:
        (X', Y', Z'[, T]) of the same dtype.
    """
    normal = target.affine[:3, 2] / np.linalg.norm(target.affine[:3, 2])
    step = float(np.linalg.norm(target.affine[:3, 2]))
    base = (source.origins[0] - target.affine[:3, 3]) @ np.linalg.pinv(target.affine[:3, :2]).T
    shifts = _shifts(source, normal) + base
    offsets = (source.origins - source.origins[0]) @ normal / step
    result = np.full((*target.shape, *voxels.shape[3:]), fill, voxels.dtype)
    placed: dict[int, npt.NDArray[np.float64]] = {}

    def slice_at(place: int) -> npt.NDArray[np.float64]:
        # Two neighbours are needed at a time.
        for old in [key for key in placed if key < place - 1]:
            del placed[old]
        if place not in placed:
            placed[place] = _shifted(voxels[:, :, place].astype(np.float64), shifts[place], target.shape[:2], fill)
        return placed[place]

    for z in range(target.shape[2]):
        above = int(np.searchsorted(offsets, z - _WHOLE))
        if above < len(offsets) and abs(offsets[above] - z) <= _WHOLE:
            values = slice_at(above)
        else:
            above = min(above, len(offsets) - 1)
            part = (z - offsets[above - 1]) / (offsets[above] - offsets[above - 1])
            values = (1 - part) * slice_at(above - 1) + part * slice_at(above)
        result[:, :, z] = np.rint(values) if voxels.dtype.kind in "iu" else values
    return result


def _shifted(
    plane: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], shape: tuple[int, ...], fill: float
) -> npt.NDArray[np.float64]:
    """A plane (X, Y[, T]) moved by a part of a pixel into a larger one, bilinearly."""
    wide = np.full((*shape, *plane.shape[2:]), fill)
    whole = np.floor(shift + _WHOLE).astype(int)
    part = np.where(shift - whole < _WHOLE, 0.0, shift - whole)
    x, y = plane.shape[:2]
    padded = np.full((x + 1, y + 1, *plane.shape[2:]), fill)
    weights = np.array([[1 - part[0], part[0]], [1 - part[1], part[1]]])
    if not part.any():
        wide[whole[0] : whole[0] + x, whole[1] : whole[1] + y] = plane
        return wide
    padded[...] = 0.0
    for i in (0, 1):
        for j in (0, 1):
            # Each pixel of the result lies between four of the plane; beyond its edge is the fill value.
            moved = np.full_like(padded, fill)
            moved[i : i + x, j : j + y] = plane
            padded += weights[0, i] * weights[1, j] * moved
    end_x, end_y = min(x + 1, shape[0] - whole[0]), min(y + 1, shape[1] - whole[1])
    wide[whole[0] : whole[0] + end_x, whole[1] : whole[1] + end_y] = padded[:end_x, :end_y]
    return wide
