"""From the frames of one series to stacks that can be volumes: alike in kind, with one frame (or one for each time) at each place."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from radioloader.errors import FormatError
from radioloader.formats.dicom.fourth_axis import (
    CATEGORIES,
    CLOCKS,
    EVERYTHING,
    by_category,
    by_clock,
    sortable,
    uneven,
    values_of,
)
from radioloader.formats.dicom.frames import LOSSY, Frame
from radioloader.formats.dicom.geometry import LPS_TO_RAS, axes_of, normal_of, slice_offsets
from radioloader.formats.dicom.meaning import NUMBERS, kind_name
from radioloader.formats.dicom.stack import Dimension, Stack

__all__ = ["Dimension", "Stack", "make_stacks", "without_copies"]

_COSINES = 1e-3
"""Direction cosines of slices of one stack agree within this: 0.06 degrees, and files round to a few digits."""
_MOST_DIRECTIONS = 1000
_SPACING = 1e-4
"""PixelSpacing of slices of one stack agrees within this part of it: 0.05 mm over 500 mm."""
_SAME_PLACE_MM = 0.01
"""Frames this close are at one place; a hundredth of a pixel where that is less (micro-CT)."""
_JITTER = 0.002
"""Of its value: an echo time, an angle or a thickness that differs by less is the same."""
_SLAB = 0.25
"""Of the width of a picture: frames of one plane that lie further apart than this are pictures of different parts of the body."""
_PLANES = ("sagittal", "coronal", "axial")


def without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Frames of which a folder holds several files (the same SOPInstanceUID, PS3.3 C.12.1) once.

    Returns:
        The frames, and pairs of a frame and the copy that was left out.

    Raises:
        FormatError: Two of them say different things: they are no copies, one of them has lost its own SOPInstanceUID.
    """
    kept: dict[Hashable, Frame] = {}
    copies = []
    for frame in sorted(frames, key=lambda frame: (frame.pixels.syntax in LOSSY, frame.path, frame.number)):
        first = kept.setdefault((frame.sop, frame.number, frame.tile), frame)
        if first is not frame:
            if _said(first) != _said(frame):
                raise FormatError(
                    f"{first.path} and {frame.path} have the same SOPInstanceUID and say different things of their frame (place, size or "
                    "rescale); remove the wrong one, or have them exported anew"
                )
            copies.append((first, frame))
    return list(kept.values()), copies


def _said(frame: Frame) -> tuple[Hashable, ...]:
    numbers = (*frame.position, *frame.orientation, *frame.spacing, frame.slope, frame.intercept)
    size = frame.pixels.rows, frame.pixels.columns, frame.pixels.signed
    # Copies may have been written anew, and their numbers with it.
    return tuple(float(f"{value:.6g}") + 0.0 for value in numbers), size


def make_stacks(frames: Sequence[Frame], modality: str = "") -> list[Stack]:
    """Split the frames of a series.

    Args:
        frames: All of them.
        modality: Its Modality. Passes of MR interleave their slices; those of CT do not.

    Raises:
        FormatError: Its frames lie in several frames of reference, so their places cannot be compared (PS3.3 C.7.4.1), or look in more
            directions than any scan does.
    """
    references = {frame.frame_of_reference for frame in frames}
    if len(references) > 1:
        raise FormatError(
            f"its frames lie in {len(references)} frames of reference: where they lie relative to each other is unknown"
        )
    same = _without_jitter(frames)
    groups: dict[Hashable, list[Frame]] = {}
    directions: list[tuple[float, ...]] = []
    spacings: list[tuple[float, ...]] = []
    # Whatever the files are called: they may be copied under other names.
    for frame in sorted(frames, key=lambda frame: (frame.instance or 0, frame.sop, frame.number, frame.position)):
        direction = _nearest(directions, frame.orientation, [_COSINES] * 6)
        if direction >= _MOST_DIRECTIONS:
            raise FormatError(f"its frames look in more than {_MOST_DIRECTIONS} directions")
        spacing = _nearest(spacings, frame.spacing, [_SPACING * value for value in frame.spacing])
        groups.setdefault((direction, spacing, _size(frame), same[frame.kind]), []).append(frame)
    keys = sorted(groups, key=repr)
    names = _names([groups[key][0] for key in keys])
    stacks = [stack for key, name in zip(keys, names, strict=True) for stack in _arrange(groups[key], name, modality)]
    # echo2 comes before echo10.
    return sorted(stacks, key=lambda stack: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", stack.name)])


def _without_jitter(frames: Sequence[Frame]) -> dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The kinds of frames, each with numbers that differ by jitter alone made the same."""
    kinds = {frame.kind for frame in frames}
    same: dict[tuple[str, str], str] = {}
    for name in NUMBERS:
        values = {value for kind in kinds for key, value in kind if key == name}
        first, start = "", -np.inf
        for value in sorted(values, key=_numeric):
            number = _numeric(value)[0]
            if not number - start <= _JITTER * abs(number):
                first, start = value, number
            same[name, value] = first
    return {kind: tuple((name, same.get((name, value), value)) for name, value in kind) for kind in kinds}


def _nearest(known: list[tuple[float, ...]], values: tuple[float, ...], within: Sequence[float]) -> int:
    """Place of the first of ``known`` that is close to ``values``; these are added when none is."""
    for place, other in enumerate(known):
        if all(abs(x - y) <= most for x, y, most in zip(other, values, within, strict=True)):
            return place
    known.append(values)
    return len(known) - 1


def _size(frame: Frame) -> tuple[Hashable, ...]:
    pixels = frame.pixels
    return *frame.picture, pixels.photometric, pixels.allocated, pixels.floating


def _names(firsts: Sequence[Frame]) -> list[str]:
    """A name for each group, made of what differs between them."""
    if len(firsts) == 1:
        return [""]
    columns: list[list[str]] = []
    planes = [_plane(frame) for frame in firsts]
    if len(set(planes)) > 1:
        columns.append(planes)
    sizes = ["{1}x{0}".format(*_size(frame)) for frame in firsts]
    if len(set(sizes)) > 1:
        columns.append(sizes)
    kinds = [dict(frame.kind) for frame in firsts]
    seen: set[str] = set()
    for name in dict.fromkeys(key for kind in kinds for key in kind):
        values = [kind.get(name, "") for kind in kinds]
        word = "echo" if name == "echo number" else "type" if name == "component" else name
        if len(set(values)) > 1 and word not in seen:
            seen.add(word)
            ranked = sorted(set(values), key=_numeric)
            columns.append([kind_name(name, value, place=ranked.index(value) + 1) if value else "" for value in values])
    names = (
        ["_".join(part for part in parts if part) for parts in zip(*columns, strict=True)]
        if columns
        else [""] * len(firsts)
    )
    counts, numbered = Counter(names), Counter[str]()
    unique: dict[str, None] = {}
    for name in names:
        candidate = name
        while not candidate or candidate in unique or (candidate == name and counts[name] > 1):
            numbered[name] += 1
            candidate = f"{name or 'stack'}{numbered[name]}"
            if counts[candidate]:  # the name of another
                candidate = ""
        unique[candidate] = None
    return list(unique)


def _plane(frame: Frame) -> str:
    return _PLANES[int(np.argmax(np.abs(LPS_TO_RAS @ normal_of(frame.orientation))))]


def _numeric(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _same_place(frame: Frame) -> float:
    return min(_SAME_PLACE_MM, 0.01 * min(frame.spacing))


def _arrange(frames: list[Frame], name: str, modality: str) -> list[Stack]:
    """One stack, or several where acquisitions overlap."""
    places = _places(frames)
    displaced = [place for place in places if _spread(place) > _same_place(frames[0])]
    if displaced:
        slabs = _slabs(frames)
        if len(slabs) > 1:
            return [
                stack
                for number, slab in enumerate(slabs, 1)
                for stack in _arrange(slab, "_".join(filter(None, (name, f"slab{number}"))), modality)
            ]
        return [
            Stack(
                name,
                tuple((frame,) for place in places for frame in place),
                problem=(
                    f"{len(displaced[0])} frames lie in one plane, but {_spread(displaced[0]):.3g} mm apart within it: they are not "
                    "pictures of one grid"
                ),
            )
        ]
    counts = {len(place) for place in places}
    if counts == {1}:
        return _single(places, name, modality)
    if len(counts) == 1:
        for axis, keys in CATEGORIES:
            found = by_category(places, axis, keys)
            if found is not None:
                return [replace(found, name=name)]
        if len({values_of(frame, ("b-value", "direction")) for frame in frames}) > 1:
            return [
                Stack(
                    name,
                    tuple((frame,) for place in places for frame in place),
                    problem=(
                        "several frames of one b-value lie at each place, and nothing tells which of them belong together (directions, "
                        "acquisitions, times and InstanceNumber are missing or say different things)"
                    ),
                )
            ]
        for axis, key in CLOCKS:
            found = by_clock(places, axis, key)
            if found is not None:
                return [replace(found, name=name)]
        found = by_category(places, "time", EVERYTHING)
        if found is not None:
            return [replace(found, name=name)]
    else:
        for axis, keys in CATEGORIES:
            stacks = uneven(places, axis, keys, name)
            if stacks is not None:
                return stacks
    # Nothing tells them apart: slices that are there twice.
    return [Stack(name, tuple((frame,) for place in places for frame in place))]


def _places(frames: list[Frame]) -> list[list[Frame]]:
    offsets = slice_offsets(frames)
    order = sorted(range(len(frames)), key=lambda k: (offsets[k], frames[k].instance or 0, frames[k].sop))
    places: list[list[Frame]] = []
    last = -np.inf
    for k in order:
        if offsets[k] - last > _same_place(frames[0]):
            places.append([])
            last = offsets[k]
        places[-1].append(frames[k])
    return places


def _slabs(frames: list[Frame]) -> list[list[Frame]]:
    """Frames apart by where they lie within their planes, such as the stations of a scan of the whole body; in that order."""
    row, column = axes_of(frames[0].orientation)
    rows, columns = frames[0].picture
    between_rows, between_columns = frames[0].spacing
    positions = np.array([frame.position for frame in frames])
    size = np.maximum([columns * between_columns, rows * between_rows], _SAME_PLACE_MM**3)
    corners = np.stack([positions @ row, positions @ column], axis=1) / size
    slabs: list[list[int]] = []
    for k in np.lexsort(corners.T[::-1]):
        home = next((slab for slab in slabs if np.abs(corners[k] - corners[slab[0]]).max() < _SLAB), None)
        if home is None:
            slabs.append([int(k)])
        else:
            home.append(int(k))
    return [[frames[k] for k in slab] for slab in slabs]


def _spread(place: Sequence[Frame]) -> float:
    positions = np.array([frame.position for frame in place])
    return float(np.linalg.norm(positions - positions[0], axis=1).max())


def _single(places: list[list[Frame]], name: str, modality: str) -> list[Stack]:
    """The stack of one frame at each place; acquisitions that alternate from slice to slice are two scans, but in MR."""
    whole = Stack(name, tuple(tuple(place) for place in places))
    numbers = [values_of(place[0], ("acquisition",)) for place in places]
    runs = sum(a != b for a, b in itertools.pairwise(numbers)) + 1
    distinct = len(set(numbers))
    if runs == distinct or distinct == len(numbers):
        return [whole]
    if modality == "MR":
        return [replace(whole, notes=(f"slices of {distinct} acquisitions (AcquisitionNumber) alternate",))]
    return [
        Stack(
            "_".join(filter(None, (name, f"acquisition{rank}"))),
            tuple(tuple(place) for place, number in zip(places, numbers, strict=True) if number == value),
        )
        for rank, value in enumerate(sorted(set(numbers), key=sortable), 1)
    ]
