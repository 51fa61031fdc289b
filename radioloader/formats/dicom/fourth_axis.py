"""The fourth axis of a volume: what tells frames at one place apart, in the same way at every place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from radioloader.formats.dicom.frames import Frame
from radioloader.formats.dicom.stack import Dimension, Stack

__all__ = ["CATEGORIES", "CLOCKS", "EVERYTHING", "by_category", "by_clock", "sortable", "uneven", "values_of"]

CATEGORIES = (
    ("b-value", ("b-value", "direction")),
    ("time", ("temporal position",)),
    ("cardiac phase", ("trigger",)),
    ("time", ("frame reference",)),
    ("acquisition", ("acquisition",)),
    ("dimension", ("dimensions",)),
)
"""What a fourth axis is made of: its name, and the values that every place must have once each."""
CLOCKS = (("cardiac phase", "trigger"), ("time", "time"), ("time", "content time"))
"""Times differ from slice to slice (and delays with the heart rate); what counts is their order at each place."""
EVERYTHING = ("temporal position", "trigger", "frame reference", "acquisition", "dimensions")
_HALF_DAY = 43_200


def by_category(places: list[list[Frame]], axis: str, keys: Sequence[str]) -> Stack | None:
    """The stack whose fourth axis are the values of ``keys``, when every place has the same ones and they tell its frames apart."""
    wanted = Counter(values_of(frame, keys) for frame in places[0])
    # Frames of one b-value and direction may be averages, or of directions that are not told: which belong together must be known.
    repeats = max(wanted.values()) > 1
    if len(wanted) < 2 or (repeats and axis != "b-value"):
        return None
    if any(Counter(values_of(frame, keys) for frame in place) != wanted for place in places):
        return None
    steps = _steps(places) if repeats else {}
    if steps is None:
        return None
    slices = tuple(
        tuple(sorted(place, key=lambda frame: (sortable(values_of(frame, keys)), steps.get(frame, 0))))
        for place in places
    )
    values = tuple(" ".join(_shown(value) for value in values_of(frame, keys) if value != "") for frame in slices[0])
    return Stack("", slices, Dimension(axis, values))


def _steps(places: list[list[Frame]]) -> dict[Frame, int] | None:
    """The step along a fourth axis of each frame, by whatever tells them apart in the same way at every place; None where nothing does."""
    for key in EVERYTHING:
        values = [[values_of(frame, (key,)) for frame in place] for place in places]
        wanted = set(values[0])
        if ("",) not in wanted and all(len(set(v)) == len(v) and set(v) == wanted for v in values):
            ranks = {value: rank for rank, value in enumerate(sorted(wanted, key=sortable))}
            return {frame: ranks[values_of(frame, (key,))] for place in places for frame in place}
    stack = by_clock(places, "time", "time")
    if stack is not None:
        return {frame: step for slices in stack.slices for step, frame in enumerate(slices)}
    return _by_instance(places)


def _by_instance(places: list[list[Frame]]) -> dict[Frame, int] | None:
    """Steps by InstanceNumber, where it counts volume by volume or place by place."""
    home = {frame: number for number, place in enumerate(places) for frame in place}
    numbers = {frame.instance for frame in home}
    if None in numbers or len(numbers) < len(home):
        return None
    ordered = sorted(home, key=lambda frame: frame.instance or 0)
    steps, count = len(places[0]), len(places)
    blocks = [ordered[start : start + count] for start in range(0, len(ordered), count)]
    if all(len({home[frame] for frame in block}) == count for block in blocks):
        return {frame: step for step, block in enumerate(blocks) for frame in block}
    runs = [ordered[start : start + steps] for start in range(0, len(ordered), steps)]
    if all(len({home[frame] for frame in run}) == 1 for run in runs):
        return {frame: step for run in runs for step, frame in enumerate(run)}
    return None


def _apart(groups: Sequence[Sequence[float]]) -> bool:
    """Whether the ranges of groups of times follow one another."""
    ranges = sorted((min(group), max(group)) for group in groups)
    return all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def by_clock(places: list[list[Frame]], axis: str, key: str) -> Stack | None:
    """The stack whose fourth axis is the order in time at each place."""
    found = {frame: values_of(frame, (key,))[0] for place in places for frame in place}
    if "" in found.values():
        return None
    clocks = {frame: float(value) for frame, value in found.items()}
    span = max(clocks.values()) - min(clocks.values())
    if key != "trigger" and max(clocks.values()) < 2 * _HALF_DAY < span + _HALF_DAY:
        # Times of day without a date, around midnight
        clocks = {frame: clock + 2 * _HALF_DAY * (clock < _HALF_DAY) for frame, clock in clocks.items()}
    if any(len({clocks[frame] for frame in place}) < len(place) for place in places):
        return None
    slices = [tuple(sorted(place, key=clocks.__getitem__)) for place in places]
    by_step = [[clocks[frame] for frame in step] for step in zip(*slices, strict=True)]
    by_place = [[clocks[frame] for frame in place] for place in slices]
    # One volume after the other, or one place after the other: else what looks like a step may be another one at the next place. Delays
    # after the trigger begin anew at every place; ContentTime is when pixels were made, which tells only where it keeps volumes apart.
    if key != "trigger" and not _apart(by_step) and (key == "content time" or not _apart(by_place)):
        return None
    start = clocks[slices[0][0]]
    # Seconds from the first: the time of day is nobody's business.
    values = tuple(_shown(clocks[frame] - start) for frame in slices[0])
    return Stack("", tuple(slices), Dimension(axis, values))


def uneven(places: list[list[Frame]], axis: str, keys: Sequence[str], name: str) -> list[Stack] | None:
    """Stacks of frames of which places have different numbers, when ``keys`` tell what belongs together."""
    groups: dict[tuple[float | str, ...], list[list[Frame]]] = {}
    for place in places:
        values = [values_of(frame, keys) for frame in place]
        if len(set(values)) < len(values):
            return None
        for value, frame in zip(values, place, strict=True):
            groups.setdefault(value, []).append([frame])
    if len(groups) < 2:
        return None
    ordered = sorted(groups, key=sortable)
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


def values_of(frame: Frame, keys: Sequence[str]) -> tuple[float | str, ...]:
    """What a frame says of ``keys``; empty texts where it says nothing."""
    known = dict(frame.index)
    return tuple(known.get(key, "") for key in keys)


def sortable(values: Sequence[float | str]) -> tuple[tuple[bool, float, str], ...]:
    """A key by which numbers come in their order, and before texts."""
    return tuple((isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v)) for v in values)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
