"""Masks of the structures of an RTSTRUCT."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, FormatError, GridMismatchError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.planes import Drawn, Plane, SliceStack, nearest_planes, planes_of, planes_on_slices
from radioloader.formats.dicom.polygons import Patch, even_odd
from radioloader.formats.dicom.rtstruct import CLOSED, Contour, Structure

__all__ = ["PlaneRule", "rasterize"]

_MOST_PAIRS = 100_000

PlaneRule = Literal["on_slices", "nearest"]

_TOLERANCE = 0.1  # of the distance between slices


def rasterize(
    structure: Structure,
    grid: ImageGrid,
    *,
    where: str | os.PathLike[str],
    planes: PlaneRule = "on_slices",
    tolerance: float | None = None,
) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """The mask of a structure on the grid of its images.

    A voxel belongs to the structure when its centre is inside by the even-odd rule over all contours of its plane together: contours side
    by side, holes, keyholes and CLOSEDPLANAR_XOR (PS3.3 C.8.8.6.3) all come out of that. Centres that lie exactly on an outline are shared
    out half-open (:func:`.even_odd`), so that structures side by side neither overlap nor leave a gap; the standard counts the outline of
    a single one as its own.

    Contours are grouped to planes by where they lie along the normal of the slices, before any plane meets a slice: planes of a structure
    set that was drawn on another spacing never cancel each other. Between planes nothing is interpolated.

    Args:
        structure: As read by :func:`.read_rtstruct`. POINT and OPEN contours enclose nothing, and are left out with a note.
        grid: The grid. Slices may be sheared or irregular: each lies where ``grid.origins`` says.
        where: The file, for messages.
        planes: ``"on_slices"``: each plane must lie on a slice. ``"nearest"``: each slice takes the nearest plane, unless that is further
            off than half the distance between the planes (their median) or between the slices, whichever is more.
        tolerance: How far off a slice a plane may be to lie on it, and how far points may be off the plane of their contour, in mm along
            the normal. None takes a tenth of the least distance between slices.

    Returns:
        The mask, bool (X, Y, Z) in Fortran order; and notes: what a user should know of it.

    Raises:
        ConfigError: ``planes`` or ``tolerance`` is not allowed.
        FormatError: There are no closed contours; they are not parallel to the slices; or a plane lies between slices and ``planes`` is
            ``"on_slices"``.
        GridMismatchError: The structure lies outside of the grid as a whole.
    """
    if planes not in ("on_slices", "nearest"):
        raise ConfigError(f"planes={planes!r} is not one of 'nearest', 'on_slices'")
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise ConfigError(
            f"tolerance={tolerance!r} must be a distance in mm above 0, or None for a tenth of the spacing"
        )
    text = f"{where}: structure {structure.name!r}"
    closed, notes = _closed(structure, text)
    stack = SliceStack(grid)
    limit = _TOLERANCE * stack.spacing if tolerance is None else float(tolerance)
    drawn = [stack.draw(contour) for contour in closed]
    _check_parallel(drawn, limit, text)
    found = planes_of(drawn, stack, text)
    if planes == "nearest":
        chosen, reach = nearest_planes(found, stack)
        notes += _moved(chosen, found, stack, limit)
    else:
        chosen, reach = planes_on_slices(found, stack, limit, text), limit
    notes += _cut(found, chosen, stack, grid, reach, text)
    mask = np.zeros(grid.shape, np.bool_, order="F")
    notes += _fill(mask, chosen, stack)
    if gaps := sorted(set(range(min(chosen), max(chosen))) - set(chosen)):
        notes.append(f"slices {_ranges(gaps)} have no contours, but slices on both sides do; they were left empty")
    notes += _misnamed(chosen, grid)
    if not mask.any():
        notes.append("its contours enclose no voxel centre: the mask is empty")
    return mask, tuple(f"structure {structure.name!r}: {note}" for note in notes)


def _closed(structure: Structure, text: str) -> tuple[list[Contour], list[str]]:
    """The contours that enclose an area, and a note of the others."""
    if not structure.contours:
        raise FormatError(f"{text}: has no contours; leave it out")
    closed: list[Contour] = []
    others: Counter[str] = Counter()
    for contour in structure.contours:
        if contour.kind not in CLOSED:
            others[contour.kind] += 1
        elif len(contour.points) < 3:
            others[f"{contour.kind} of fewer than three points"] += 1
        else:
            closed.append(contour)
    listed = ", ".join(f"{count} {kind}" for kind, count in others.items())
    if not closed:
        raise FormatError(f"{text}: none of its contours encloses an area: {listed}; leave it out")
    return closed, [f"contours that enclose no area were left out: {listed}"] if listed else []


def _check_parallel(drawn: Sequence[Drawn], limit: float, text: str) -> None:
    spread = max(contour.spread for contour in drawn)
    if spread > 2 * limit:
        raise FormatError(
            f"{text}: its contours are not parallel to the slices: the points of one lie up to {spread:.4g} mm apart along the normal of "
            f"the slices, allowed are {2 * limit:.4g} mm; it was drawn on another orientation: give the series that it was drawn on"
        )


def _moved(chosen: Mapping[int, Plane], planes: Sequence[Plane], stack: SliceStack, limit: float) -> list[str]:
    notes = []
    if moved := sum(abs(stack.heights[z] - plane.height) > limit for z, plane in chosen.items()):
        notes.append(f"{moved} of {len(chosen)} slices took a plane more than {limit:.4g} mm off (planes='nearest')")
    if unused := len(planes) - len({plane.height for plane in chosen.values()}):
        notes.append(f"{unused} of {len(planes)} planes were not used, because no slice has them for its nearest one")
    return notes


def _cut(
    planes: Sequence[Plane], chosen: Mapping[int, Plane], stack: SliceStack, grid: ImageGrid, reach: float, text: str
) -> list[str]:
    """A note of what lies outside of the grid: beyond half a voxel from the centres in a slice, ``reach`` mm across slices."""
    size = np.array(grid.shape[:2])
    low, high = stack.heights.min() - reach, stack.heights.max() + reach
    count = outside = partly = 0
    for plane in planes:
        shift = stack.shifts[np.abs(stack.heights - plane.height).argmin()]
        for drawn in plane.contours:
            first, last = drawn.places.min(axis=0) - shift, drawn.places.max(axis=0) - shift
            count += 1
            if not low <= plane.height <= high or (last < -0.5).any() or (first > size - 0.5).any():
                outside += 1
            elif (first < -0.5).any() or (last > size - 0.5).any():
                partly += 1
    if outside == count or not chosen:
        points = np.concatenate([drawn.contour.points for plane in planes for drawn in plane.contours])
        ends = np.array([[x, y] for x in (-0.5, size[0] - 0.5) for y in (-0.5, size[1] - 0.5)])
        corners = (grid.origins[:, None] + ends @ grid.affine[:3, :2].T).reshape(-1, 3)
        raise GridMismatchError(
            f"{text}: lies outside of the images of series {grid.series}: it reaches from {_place(points.min(axis=0))} to "
            f"{_place(points.max(axis=0))} RAS mm, their slices from {_place(corners.min(axis=0))} to {_place(corners.max(axis=0))}; "
            "give the series that it was drawn on"
        )
    if not outside and not partly:
        return []
    return [f"{outside} of {count} contours lie outside of the images, {partly} in part; what is outside was cut off"]


def _fill(mask: npt.NDArray[np.bool_], chosen: Mapping[int, Plane], stack: SliceStack) -> list[str]:
    """Fill a mask (X, Y, Z), slice by slice."""
    twice: set[int] = set()
    doubtful: Counter[int] = Counter()
    for z, plane in sorted(chosen.items()):
        patches: dict[bytes | int, tuple[Drawn, Patch]] = {}
        for drawn in plane.contours:
            patch = even_odd(drawn.places - stack.shifts[z], (mask.shape[0], mask.shape[1]))
            key = _outline(drawn) if drawn.contour.kind == "CLOSED_PLANAR" else len(patches)
            # Written twice, a contour would cancel itself, which nobody can mean. (Of CLOSEDPLANAR_XOR it is what the standard says.)
            if key in patches and np.array_equal(patches[key][1][2], patch[2]):
                twice.add(z)
                continue
            patches[key if key not in patches else len(patches)] = drawn, patch
        for _, (x, y, inside) in patches.values():
            mask[x, y, z] ^= inside
        if sum(int(patch[2].sum()) for _, patch in patches.values()) != int(mask[:, :, z].sum()):
            doubtful[z] = _crossing([p for drawn, p in patches.values() if drawn.contour.kind == "CLOSED_PLANAR"])
    notes = []
    if twice:
        notes.append(f"has the same contour twice on slices {_ranges(sorted(twice))}; it was taken once")
    if doubtful.total():
        at = _ranges(sorted(z for z, count in doubtful.items() if count))
        notes.append(
            f"CLOSED_PLANAR contours cross each other on slices {at}: {doubtful.total()} voxels inside two of them were taken as outside "
            "(even-odd), as those of a hole are"
        )
    return notes


def _outline(drawn: Drawn) -> bytes:
    """The same for two contours of the same points, wherever they begin and whichever way they run."""
    points = drawn.contour.points
    return points[np.lexsort(points.T)].tobytes()


def _crossing(patches: Sequence[Patch]) -> int:
    """Voxels that two contours enclose, neither of which lies within the other; of thousands of contours, what the first pairs share."""
    count = 0
    for (ax, ay, a), (bx, by, b) in islice(combinations(patches, 2), _MOST_PAIRS):
        x = slice(max(ax.start, bx.start), min(ax.stop, bx.stop))
        y = slice(max(ay.start, by.start), min(ay.stop, by.stop))
        if x.start >= x.stop or y.start >= y.stop:
            continue
        in_a = a[x.start - ax.start : x.stop - ax.start, y.start - ay.start : y.stop - ay.start]
        in_b = b[x.start - bx.start : x.stop - bx.start, y.start - by.start : y.stop - by.start]
        both = int((in_a & in_b).sum())
        if both not in (0, int(a.sum()), int(b.sum())):
            count += both
    return count


def _misnamed(chosen: Mapping[int, Plane], grid: ImageGrid) -> list[str]:
    """Contours may name the image that they were drawn on (PS3.3 C.8.8.6). One that lies elsewhere says that files were mixed up."""
    slices: dict[str, set[int]] = {}
    for z, frames in enumerate(grid.slices):
        for instance, _ in frames:
            slices.setdefault(instance, set()).add(z)
    wrong = 0
    for plane in {id(plane): plane for plane in chosen.values()}.values():
        lies = {z for z, other in chosen.items() if other is plane}
        for drawn in plane.contours:
            named = set().union(*(slices.get(image, set()) for image in drawn.contour.images))
            wrong += bool(named) and named.isdisjoint(lies)
    if not wrong:
        return []
    return [
        f"{wrong} contours name the image of another slice than the one that they lie on; their coordinates were used"
    ]


def _ranges(numbers: Sequence[int]) -> str:
    """``0-3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _place(point: npt.NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in point) + ")"
