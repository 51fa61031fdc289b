"""From the frames of one series to stacks that can be volumes: alike in kind, with one frame (or one for each time) at each place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Frame
from radioloader.formats.dicom.geometry import LPS_TO_RAS, axes_of, normal_of, slice_offsets
from radioloader.formats.dicom.meaning import kind_name

__all__ = ["Dimension", "Stack", "make_stacks", "picture_of", "without_copies"]

_COSINES = 1e-3
"""Direction cosines of slices of one stack agree within this: 0.06 degrees, and files round to a few digits."""
_MOST_DIRECTIONS = 1000
_SPACING = 1e-4
"""PixelSpacing of slices of one stack agrees within this part of it: 0.05 mm over 500 mm."""
_SAME_PLACE_MM = 0.01
_SLAB = 0.25
"""Of the width of a picture: frames of one plane that lie further apart than this are pictures of different parts of the body."""
_PLANES = ("sagittal", "coronal", "axial")

_CATEGORIES = (
    ("b-value", ("b-value", "direction")),
    ("time", ("temporal position",)),
    ("cardiac phase", ("trigger",)),
    ("time", ("frame reference",)),
    ("acquisition", ("acquisition",)),
    ("dimension", ("dimensions",)),
)
"""What a fourth axis is made of: its name, and the values that every place must have once each."""
_CLOCKS = (("cardiac phase", "trigger"), ("time", "time"), ("time", "content time"))
"""Times differ from slice to slice (and delays with the heart rate); what counts is their order at each place."""
_ALL = ("temporal position", "trigger", "frame reference", "acquisition", "dimensions")
_LATER = (*_ALL, "time", "content time")
"""What tells the order of frames that are alike."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """What the fourth axis of a volume is.

    Attributes:
        name: ``"time"``, ``"b-value"``, ``"cardiac phase"``, ``"acquisition"``, or ``"dimension"``: what DimensionIndexValues tell apart.
        values: One for each step: numbers of temporal positions or acquisitions, or seconds from the first; delays after the trigger in ms
            (from the first, where they follow the heart rate); b-values in s/mm2 and their direction.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames for one volume, slice by slice.

    Attributes:
        name: What tells it from the other stacks of its series, such as ``"echo2"``; empty when it is the only one.
        slices: The frames of each place, in the order of the fourth axis; places along the normal.
        dimension: The fourth axis; None where there is none.
        problem: Why it is no volume; empty when it may be one.
    """

    name: str
    slices: tuple[tuple[Frame, ...], ...]
    dimension: Dimension | None = None
    problem: str = ""

    @property
    def frames(self) -> list[Frame]:
        """All frames."""
        return [frame for places in self.slices for frame in places]


def without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], list[tuple[Frame, Frame]]]:
    """Frames of which a folder holds several files (the same SOPInstanceUID, PS3.3 C.12.1) once.

    Returns:
        The frames, and pairs of a frame and the copy that was left out.

    Raises:
        FormatError: Two of them say different things: they are no copies, one of them has lost its own SOPInstanceUID.
    """
    kept: dict[Hashable, Frame] = {}
    copies = []
    for frame in sorted(frames, key=lambda frame: (frame.path, frame.number)):
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


def make_stacks(frames: Sequence[Frame]) -> list[Stack]:
    """Split the frames of a series.

    Raises:
        FormatError: Its frames lie in several frames of reference, so their places cannot be compared (PS3.3 C.7.4.1), or look in more
            directions than any scan does.
    """
    references = {frame.frame_of_reference for frame in frames}
    if len(references) > 1:
        raise FormatError(
            f"its frames lie in {len(references)} frames of reference: where they lie relative to each other is unknown"
        )
    groups: dict[Hashable, list[Frame]] = {}
    directions: list[tuple[float, ...]] = []
    spacings: list[tuple[float, ...]] = []
    # Whatever the files are called: they may be copied under other names.
    for frame in sorted(frames, key=lambda frame: (frame.instance or 0, frame.sop, frame.number, frame.position)):
        direction = _nearest(directions, frame.orientation, [_COSINES] * 6)
        if direction >= _MOST_DIRECTIONS:
            raise FormatError(f"its frames look in more than {_MOST_DIRECTIONS} directions")
        spacing = _nearest(spacings, frame.spacing, [_SPACING * value for value in frame.spacing])
        groups.setdefault((direction, spacing, _size(frame), frame.kind), []).append(frame)
    keys = sorted(groups, key=repr)
    names = _names([groups[key][0] for key in keys])
    stacks = [stack for key, name in zip(keys, names, strict=True) for stack in _arrange(groups[key], name)]
    # echo2 comes before echo10.
    return sorted(stacks, key=lambda stack: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", stack.name)])


def _nearest(known: list[tuple[float, ...]], values: tuple[float, ...], within: Sequence[float]) -> int:
    """Place of the first of ``known`` that is close to ``values``; these are added when none is."""
    for place, other in enumerate(known):
        if all(abs(x - y) <= most for x, y, most in zip(other, values, within, strict=True)):
            return place
    known.append(values)
    return len(known) - 1


def picture_of(frame: Frame) -> tuple[int, int]:
    """Rows and columns of a frame, or of the tile of it."""
    return (frame.pixels.rows, frame.pixels.columns) if frame.tile is None else (frame.tile.rows, frame.tile.columns)


def _size(frame: Frame) -> tuple[Hashable, ...]:
    pixels = frame.pixels
    return *picture_of(frame), pixels.photometric, pixels.allocated, pixels.floating


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


def _arrange(frames: list[Frame], name: str) -> list[Stack]:
    """One stack, or several where acquisitions overlap."""
    places = _places(frames)
    displaced = [place for place in places if _spread(place) > _SAME_PLACE_MM]
    if displaced:
        slabs = _slabs(frames)
        if len(slabs) > 1:
            return [
                stack
                for number, slab in enumerate(slabs, 1)
                for stack in _arrange(slab, "_".join(filter(None, (name, f"slab{number}"))))
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
        return [Stack(name, tuple(tuple(place) for place in places))]
    if len(counts) == 1:
        for axis, keys in _CATEGORIES:
            found = _by_category(places, axis, keys)
            if found is not None:
                return [replace(found, name=name)]
        for axis, key in _CLOCKS:
            found = _by_clock(places, axis, key)
            if found is not None:
                return [replace(found, name=name)]
        found = _by_category(places, "time", _ALL)
        if found is not None:
            return [replace(found, name=name)]
    else:
        for axis, keys in _CATEGORIES:
            stacks = _uneven(places, axis, keys, name)
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
        if offsets[k] - last > _SAME_PLACE_MM:
            places.append([])
            last = offsets[k]
        places[-1].append(frames[k])
    return places


def _slabs(frames: list[Frame]) -> list[list[Frame]]:
    """Frames apart by where they lie within their planes, such as the stations of a scan of the whole body; in that order."""
    row, column = axes_of(frames[0].orientation)
    rows, columns = picture_of(frames[0])
    between_rows, between_columns = frames[0].spacing
    positions = np.array([frame.position for frame in frames])
    corners = np.stack([positions @ row, positions @ column], axis=1) / [
        columns * between_columns,
        rows * between_rows,
    ]
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


def _values(frame: Frame, keys: Sequence[str]) -> tuple[float | str, ...]:
    known = dict(frame.index)
    return tuple(known.get(key, "") for key in keys)


def _by_category(places: list[list[Frame]], axis: str, keys: Sequence[str]) -> Stack | None:
    """The stack whose fourth axis are the values of ``keys``, when every place has the same ones and they tell its frames apart."""
    wanted = Counter(_values(frame, keys) for frame in places[0])
    # Averages of one b-value and direction are alike, so their order does not matter; anything else must be told apart.
    repeats = axis == "b-value"
    if len(wanted) < 2 or (not repeats and max(wanted.values()) > 1):
        return None
    if any(Counter(_values(frame, keys) for frame in place) != wanted for place in places):
        return None
    slices = tuple(
        tuple(sorted(place, key=lambda frame: (_sortable(_values(frame, (*keys, *_LATER))), frame.instance or 0)))
        for place in places
    )
    values = tuple(" ".join(_shown(value) for value in _values(frame, keys) if value != "") for frame in slices[0])
    return Stack("", slices, Dimension(axis, values))


def _by_clock(places: list[list[Frame]], axis: str, key: str) -> Stack | None:
    """The stack whose fourth axis is the order in time at each place."""
    slices = []
    for place in places:
        clocks = [_values(frame, (key,))[0] for frame in place]
        if "" in clocks or len(set(clocks)) < len(clocks):
            return None
        slices.append(tuple(sorted(place, key=lambda frame: _sortable(_values(frame, (key,))))))
    start = float(_values(slices[0][0], (key,))[0])
    # Seconds from the first: the time of day is nobody's business.
    values = tuple(_shown(float(_values(frame, (key,))[0]) - start) for frame in slices[0])
    return Stack("", tuple(slices), Dimension(axis, values))


def _uneven(places: list[list[Frame]], axis: str, keys: Sequence[str], name: str) -> list[Stack] | None:
    """Stacks of frames of which places have different numbers, when ``keys`` tell what belongs together."""
    groups: dict[tuple[float | str, ...], list[list[Frame]]] = {}
    for place in places:
        values = [_values(frame, keys) for frame in place]
        if len(set(values)) < len(values):
            return None
        for value, frame in zip(values, place, strict=True):
            groups.setdefault(value, []).append([frame])
    if len(groups) < 2:
        return None
    ordered = sorted(groups, key=_sortable)
    whole = [value for value in ordered if len(groups[value]) == len(places)]
    if len(whole) < 2 and axis == "acquisition":
        # Scans of different extents under one series
        return [
            Stack("_".join(filter(None, (name, f"{axis}{place + 1}"))), tuple(tuple(one) for one in groups[value]))
            for place, value in enumerate(ordered)
        ]
    if not whole:
        return None
    broken = next(value for value in ordered if value not in whole)
    problem = (
        f"{axis} {ordered.index(broken) + 1} of {len(ordered)} has {len(groups[broken])} slices, expected {len(places)}: the scan was "
        "broken off, or files are missing"
    )
    return [Stack(name, tuple(tuple(place) for place in places), problem=problem)]


def _sortable(values: Sequence[float | str]) -> tuple[tuple[bool, float, str], ...]:
    return tuple((isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v)) for v in values)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
