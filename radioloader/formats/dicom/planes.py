"""Planes of contours, and the slices that they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.rtstruct import Contour

__all__ = ["Drawn", "Plane", "SliceStack", "nearest_planes", "planes_of", "planes_on_slices"]

_SAME = 0.02  # of the distance between slices: contours that are closer along the normal lie in one plane
_EVEN = 1e-6  # of the distance between slices: distances that are closer count as equal


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A contour as the slices see it.

    Attributes:
        contour: The contour.
        places: (n, 2) float64, voxels along x and y from voxel (0, 0) of the first slice, projected along the normal.
        height: Middle of its points along the normal, mm from the first slice.
        spread: Distance between its lowest and its highest point along the normal, mm.
    """

    contour: Contour
    places: npt.NDArray[np.float64]
    height: float
    spread: float


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """The contours of one plane, and its height (mm along the normal from the first slice)."""

    height: float
    contours: tuple[Drawn, ...]


class SliceStack:
    """The slices of a grid, seen along their normal.

    Coordinates are voxels along x and y and mm along the normal. Unlike a voxel index along z, these say what lies in the plane of a slice
    and how far off it, whether or not the stack is sheared or irregular.

    Attributes:
        heights: (Z,) float64, mm along the normal from the first slice.
        shifts: (Z, 2) float64, voxels along x and y from voxel (0, 0) of the first slice to that of each slice: not zero where sheared.
        spacing: Least distance between two slices along the normal, mm.
    """

    def __init__(self, grid: ImageGrid) -> None:
        along = grid.affine[:3, :2]
        normal = np.cross(along[:, 0], along[:, 1])
        normal /= np.linalg.norm(normal)
        self._turn = np.linalg.inv(np.column_stack([along, normal]))
        self._first = grid.origins[0]
        origins = (grid.origins - self._first) @ self._turn.T
        self.shifts, self.heights = origins[:, :2], origins[:, 2]
        steps = np.diff(np.sort(self.heights))
        steps = steps[steps > 0]
        self.spacing = float(steps.min()) if steps.size else abs(float(normal @ grid.affine[:3, 2]))

    def draw(self, contour: Contour) -> Drawn:
        """The contour in the coordinates of the stack."""
        places = (contour.points - self._first) @ self._turn.T
        low, high = float(places[:, 2].min()), float(places[:, 2].max())
        return Drawn(contour, places[:, :2], (low + high) / 2, high - low)


def planes_of(contours: Sequence[Drawn], stack: SliceStack, where: str) -> list[Plane]:
    """Contours by plane, from low to high.

    Contours on one slice hold the same coordinate along the normal, up to rounding; those of another slice are a whole distance away.

    Raises:
        FormatError: They lie so densely that there are no planes.
    """
    ordered = sorted(contours, key=lambda drawn: drawn.height)
    groups = [[ordered[0]]]
    for before, now in pairwise(ordered):
        if now.height - before.height > _SAME * stack.spacing:
            groups.append([])
        groups[-1].append(now)
    for group in groups:
        width = group[-1].height - group[0].height
        if width > 2 * _SAME * stack.spacing:
            raise FormatError(
                f"{where}: its planes cannot be told apart: over {width:.4g} mm along the normal of the slices contours follow each other "
                f"by less than {_SAME * stack.spacing:.4g} mm; the slices are {stack.spacing:.4g} mm apart"
            )
    return [Plane((group[0].height + group[-1].height) / 2, tuple(group)) for group in groups]


def planes_on_slices(planes: Sequence[Plane], stack: SliceStack, tolerance: float, where: str) -> dict[int, Plane]:
    """The plane of each slice that has one. Planes below the first slice and above the last are left out.

    Raises:
        FormatError: A plane lies between slices, or two on one slice.
    """
    advice = "give the series that it was drawn on, or planes='nearest' (--planes nearest) to let each slice take the nearest plane"
    low, high = stack.heights.min() - tolerance, stack.heights.max() + tolerance
    inside = [plane for plane in planes if low <= plane.height <= high]
    if not inside:
        return {}
    distances = np.array([np.abs(stack.heights - plane.height) for plane in inside])
    least = distances.min(axis=1)
    if off := int((least > tolerance).sum()):
        worst = int(least.argmax())
        raise FormatError(
            f"{where}: {off} of its {len(planes)} planes lie between slices: one is {least[worst]:.4g} mm off the nearest slice "
            f"({distances[worst].argmin()}), allowed are {tolerance:.4g} mm (slices are {stack.spacing:.4g} mm apart); {advice}"
        )
    chosen: dict[int, Plane] = {}
    for plane, z in zip(inside, distances.argmin(axis=1).tolist(), strict=True):
        if z in chosen:
            raise FormatError(
                f"{where}: two planes that are {plane.height - chosen[z].height:.4g} mm apart lie on slice {z}; {advice}"
            )
        chosen[z] = plane
    return chosen


def nearest_planes(planes: Sequence[Plane], stack: SliceStack) -> tuple[dict[int, Plane], float]:
    """The nearest plane of each slice that has one near enough, and how near that is (mm).

    Each plane stands for a slab around it, as thick as the distance between planes (their median) or between slices, whichever is more.
    Slabs are half-open: half-way between two planes a slice takes the upper one.
    """
    heights = np.array([plane.height for plane in planes])
    reach = max(float(np.median(np.diff(heights))) if len(planes) > 1 else 0.0, stack.spacing) / 2
    even = _EVEN * stack.spacing
    chosen: dict[int, Plane] = {}
    for z, height in enumerate(stack.heights):
        distances = np.abs(heights - height)
        nearest = int(np.flatnonzero(distances <= distances.min() + even)[-1])
        if -reach - even <= height - heights[nearest] < reach - even:
            chosen[z] = planes[nearest]
    return chosen, reach
