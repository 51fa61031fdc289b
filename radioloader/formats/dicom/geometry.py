"""From the places of slices to a voxel grid, and what there is to say about it.

Slices are ordered along the normal of their planes by ImagePositionPatient (PS3.3 C.7.6.2.1.1), never by InstanceNumber or by file name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame
from radioloader.geometry import affine_problem

__all__ = ["Layout", "Verdict", "axes_of", "lay_out", "normal_of", "rescale_of", "runs_of", "slice_offsets"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_COSINES = 1e-3
"""How far the direction cosines may be off length 1 and off a right angle (files round them to a few digits)."""
_ROUNDING_MM = 1e-4
"""Decimal strings of 16 characters, and sums of them, are not more exact than this however small a tolerance is."""
_SHARE = 0.1
"""Of the distance of slices: a tolerance in mm never lets more than that pass."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about the geometry of a volume. All lengths are in mm.

    Attributes:
        status: ``"regular"``; ``"tilted"`` (sheared: slices are displaced within their planes, by the same amount each); ``"single"`` (one
            slice); ``"irregular"`` (slices missing, doubled, or unevenly spaced).
        slices: Number of slices.
        step: Distance of neighbouring slices along the normal (the most common one).
        deviation: How far a slice lies off the grid that the affine describes, at most.
        tilt: Angle between the slice normal and the line of slices, in degrees.
        gaps: Where slices are missing: the slice before the gap (from 0) and how far it is to the next one.
        duplicates: Slices at the place of the one before.
        orientation: How far apart the direction cosines of slices are, at most.
        order: What InstanceNumber says of the order: ``"ascending"``, ``"descending"``, ``"other"``, ``"unknown"``.
        rescale: ``"none"``, ``"uniform"`` or ``"per slice"``.
        changed: What was done about it: ``""``, ``"resampled"``, ``"split"`` or ``"kept"``.
        notes: Anything else.
    """

    status: str
    slices: int
    step: float
    deviation: float = 0.0
    tilt: float = 0.0
    gaps: tuple[tuple[int, float], ...] = ()
    duplicates: tuple[int, ...] = ()
    orientation: float = 0.0
    order: str = "unknown"
    rescale: str = "none"
    changed: str = ""
    notes: tuple[str, ...] = ()

    @property
    def odd(self) -> bool:
        """Whether the slices do not lie as they should, or did not before they were changed."""
        return self.status not in ("regular", "single") or bool(self.changed)

    def describe(self) -> str:
        """In words, such as ``"irregular: 1 gap (6 mm after slice 11, expected 3 mm)"``."""
        parts = []
        if self.gaps:
            place, width = self.gaps[0]
            more = f", and {len(self.gaps) - 1} more" if len(self.gaps) > 1 else ""
            parts.append(
                f"{_count(len(self.gaps), 'gap')} ({width:.4g} mm after slice {place + 1}, expected {self.step:.4g} mm{more})"
            )
        if self.duplicates:
            parts.append(
                f"{_count(len(self.duplicates), 'slice')} at the place of another (slice {self.duplicates[0] + 1})"
            )
        if self.status == "irregular" and not parts:
            parts.append(f"slices lie up to {self.deviation:.3g} mm off a regular grid")
        if self.status == "tilted":
            parts.append(f"{self.tilt:.2f} degrees")
        parts += [*([self.changed] if self.changed else []), *self.notes]
        return self.status + (f": {'; '.join(parts)}" if parts else "")

    def to_json(self) -> str:
        """As JSON, for the catalog."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """What :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["gaps"] = tuple((int(place), float(width)) for place, width in values["gaps"])
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Layout:
    """Slices in their order, on a grid.

    Attributes:
        order: Places of the slices in what was given, along the normal.
        affine: (4, 4) float64, index (column, row, slice) to RAS mm.
        origins: (Z, 3) float64, RAS mm, centre of pixel (0, 0) of each slice.
        verdict: About it.
    """

    order: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    origins: npt.NDArray[np.float64]
    verdict: Verdict


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def axes_of(orientation: Sequence[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The unit vectors along a row and along a column (3,), in LPS.

    Raises:
        FormatError: They are no unit vectors at a right angle.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _COSINES or abs(row @ column) > _COSINES:
        raise FormatError(
            "ImageOrientationPatient does not hold two unit vectors at a right angle: lengths "
            f"{lengths[0]:.4f} and {lengths[1]:.4f}, cosine {row @ column:.4f}"
        )
    return row, column


def normal_of(orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """The unit normal (3,) of a slice, row x column, in LPS."""
    normal = np.cross(*axes_of(orientation))
    unit: npt.NDArray[np.float64] = normal / np.linalg.norm(normal)
    return unit


def slice_offsets(frames: Sequence[Frame]) -> npt.NDArray[np.float64]:
    """(n,) distance of each frame from the patient's origin along the normal of the first one, in mm."""
    offsets: npt.NDArray[np.float64] = np.array([frame.position for frame in frames]) @ normal_of(frames[0].orientation)
    return offsets


def lay_out(frames: Sequence[Frame], tolerance_mm: float) -> Layout:
    """Order frames, one for each slice, and put them on a grid.

    The affine's slice axis is the line from the first to the last slice, divided evenly, so that tilted stacks keep their shear. For an
    irregular stack that is not where its slices lie: ``origins`` is.

    Args:
        frames: One of each slice, of one orientation, size and spacing.
        tolerance_mm: How far a slice may lie off a regular grid.

    Raises:
        FormatError: There is no such grid: the header does not tell how thick a single slice is.
    """
    offsets = slice_offsets(frames)
    order = sorted(
        range(len(frames)), key=lambda place: (offsets[place], frames[place].instance or 0, frames[place].sop)
    )
    # Cosines may differ a little from slice to slice: those of the first place count, whatever its file is called.
    first = frames[order[0]]
    row, column = (axis / np.linalg.norm(axis) for axis in axes_of(first.orientation))
    normal = normal_of(first.orientation)
    offsets = np.array([frame.position for frame in frames]) @ normal
    positions = np.array([frames[place].position for place in order])
    offsets = offsets[order]
    between_rows, between_columns = first.spacing
    if min(first.spacing) <= 0:
        raise FormatError(f"PixelSpacing is {between_rows:g} x {between_columns:g} mm; expected positive distances")
    count = len(frames)
    if count > 1:
        line = (positions[-1] - positions[0]) / (count - 1)
        corners = _corners([frames[place] for place in order])
        verdict = _judge(positions, corners, offsets, normal, line, tolerance_mm)
        if line @ normal <= 0:
            line = normal * max(verdict.step, first.thickness)  # all at one place
    else:
        if first.thickness <= 0:
            raise FormatError(
                "it is a single slice without SliceThickness or SpacingBetweenSlices: how deep its voxels are is unknown"
            )
        line = normal * first.thickness
        verdict = Verdict("single", 1, first.thickness)
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.stack([row * between_columns, column * between_rows, line], axis=1)
    affine[:3, 3] = LPS_TO_RAS @ positions[0]
    problem = affine_problem(affine)
    if problem:
        raise FormatError(problem)
    cosines = np.array([frame.orientation for frame in frames])
    verdict = replace(
        verdict,
        orientation=float(np.abs(cosines - cosines[0]).max()),
        order=_instance_order([frames[place].instance for place in order]),
        notes=_sparse(verdict.step, first.thickness) if count > 1 else (),
    )
    return Layout(tuple(order), affine, positions @ LPS_TO_RAS.T, verdict)


def _judge(
    positions: npt.NDArray[np.float64],
    corners: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
    line: npt.NDArray[np.float64],
    tolerance_mm: float,
) -> Verdict:
    count = len(positions)
    steps = np.diff(offsets)
    together = np.flatnonzero(steps <= _least(steps)) + 1
    apart = np.delete(steps, together - 1)
    step = _common(apart) if apart.size else 0.0
    allowed = max(min(tolerance_mm, _SHARE * step) if step else tolerance_mm, _ROUNDING_MM)
    # At the first pixel of each slice, and at the last one: slices that turn within their plane are as wrong as those that are displaced.
    even = np.arange(count)[:, None] * line
    deviation = float(max(np.linalg.norm(ends - ends[0] - even, axis=1).max() for ends in (positions, corners)))
    gaps = tuple((int(k), float(steps[k])) for k in np.flatnonzero(steps > step + max(allowed, 0.25 * step)))
    across = line - (line @ normal) * normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(across), abs(line @ normal))))
    if together.size or deviation > allowed:
        gaps = gaps if deviation > allowed else ()
        return Verdict("irregular", count, step, deviation, tilt, gaps, tuple(int(k) for k in together))
    # A drift of less than the tolerance over the whole stack is rounding.
    tilted = float(np.linalg.norm(across)) * (count - 1) > max(tolerance_mm, _ROUNDING_MM)
    return Verdict("tilted" if tilted else "regular", count, step, deviation, tilt)


def _corners(frames: Sequence[Frame]) -> npt.NDArray[np.float64]:
    """(n, 3) centre of the last pixel of each slice, by its own cosines, in LPS mm."""
    rows, columns = frames[0].picture
    cosines = np.array([frame.orientation for frame in frames]).reshape(-1, 2, 3)
    cosines = cosines / np.linalg.norm(cosines, axis=2, keepdims=True)
    between_rows, between_columns = frames[0].spacing
    reach = np.array([(columns - 1) * between_columns, (rows - 1) * between_rows])
    ends: npt.NDArray[np.float64] = np.array([frame.position for frame in frames]) + np.einsum(
        "a,nax->nx", reach, cosines
    )
    return ends


def _sparse(step: float, claimed: float) -> tuple[str, ...]:
    """What to say where slices lie several times as far apart as each of them says."""
    times = round(step / claimed) if claimed > 0 else 0
    if times < 2 or abs(step - times * claimed) > 0.02 * step:
        return ()
    return (
        f"slices lie {times} times as far apart ({step:.4g} mm) as SpacingBetweenSlices or SliceThickness says ({claimed:.4g} mm): there "
        "are gaps between them, or every other slice is missing",
    )


def _least(steps: npt.NDArray[np.float64]) -> float:
    """Steps up to this are none: a hundredth of the median, which absurdly fine rounding would not reach."""
    positive = steps[steps > 1e-4]
    return max(1e-4, 0.01 * float(np.median(positive))) if positive.size else 1e-4


def _common(steps: npt.NDArray[np.float64]) -> float:
    """The most common step, of those that agree within a hundredth."""
    ordered = np.sort(steps)
    agreeing = np.searchsorted(ordered, 1.01 * ordered, "right") - np.searchsorted(ordered, 0.99 * ordered, "left")
    best = ordered[int(np.argmax(agreeing))]
    return float(np.median(ordered[np.abs(ordered - best) <= 0.01 * best]))


def runs_of(positions: npt.NDArray[np.float64], tolerance_mm: float) -> list[range]:
    """Runs of evenly spaced slices, each as a range of places; all slices are in one of them, alone if need be.

    Args:
        positions: (Z, 3), in their order along the normal; no two at one place.
        tolerance_mm: How far a step may be off that of its run.
    """
    steps = np.diff(positions, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    step = _common(lengths) if len(lengths) else 0.0
    groups: list[list[int]] = []
    for place, vector in enumerate(steps):
        limit = min(tolerance_mm, _SHARE * float(lengths[place]))
        if groups and np.linalg.norm(vector - np.mean(steps[groups[-1]], axis=0)) <= limit:
            groups[-1].append(place)
        else:
            groups.append([place])
    runs: list[range] = []
    taken = 0
    for group in groups:
        usual = abs(float(lengths[group].mean()) - step) <= min(tolerance_mm, _SHARE * step)
        if len(group) == 1 and not usual:
            continue  # a gap
        start, stop = max(group[0], taken), group[-1] + 2
        runs += [range(place, place + 1) for place in range(taken, start)]
        runs.append(range(start, stop))
        taken = stop
    runs += [range(place, place + 1) for place in range(taken, len(positions))]
    return runs


def _instance_order(numbers: Sequence[int | None]) -> str:
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(known) < 2:
        return "unknown"
    steps = np.diff(known)
    return "ascending" if (steps > 0).all() else "descending" if (steps < 0).all() else "other"


def rescale_of(frames: Sequence[Frame]) -> str:
    """``"none"``, ``"uniform"`` or ``"per slice"``."""
    pairs = {(frame.slope, frame.intercept) for frame in frames}
    return "per slice" if len(pairs) > 1 else "none" if pairs == {(1.0, 0.0)} else "uniform"
