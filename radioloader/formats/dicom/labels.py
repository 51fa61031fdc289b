"""From named masks (of segments or structures) to label volumes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from radioloader._checks import as_whole
from radioloader.errors import ConfigError, FormatError, ShapeError

__all__ = ["Classes", "OverlapRule", "class_titles", "combine", "match_classes", "matches"]

OverlapRule = Literal["error", "separate"]

_HIGHEST = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Classes:
    """Which class each name belongs to.

    Attributes:
        values: Name to class (1 and up), of those names that have one.
        titles: Class to the word for it in names of collections, of all classes that were asked for.
        notes: What a user should know: names that were left out, patterns that match nothing.
    """

    values: Mapping[str, int]
    titles: Mapping[int, str]
    notes: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the label volume: uint8, or uint16 for classes above 255. It depends on the mapping alone, so that it is the same for
        every subject."""
        return np.dtype(np.uint8 if max(self.titles) < 2**8 else np.uint16)


def match_classes(names: Iterable[str], mapping: Mapping[str, int] | None, *, where: str | os.PathLike[str]) -> Classes:
    """Find the class of each name.

    Args:
        names: Names of the structures or segments of a file; the same one may come several times.
        mapping: Pattern to class, such as ``{"GTV*": 1, "Lung*": 2}``. A pattern is a name, or a glob (``*``, ``?``, ``[...]``); upper and
            lower case are the same. Several patterns may have one class, and all that match are united. None makes the only structure of a
            file class 1.
        where: The file, for messages.

    Raises:
        ConfigError: A class is not a whole number from 1 to 65535; a name matches patterns of different classes; or there is no mapping,
            and more than one name.
        FormatError: There are no names, or none that a pattern matches.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise FormatError(f"{where}: holds no structures")
    if mapping is None:
        if len(names) > 1:
            example = ", ".join(f"{name!r}: {number}" for number, name in enumerate(names[:3], 1))
            raise ConfigError(
                f"{where}: holds {len(names)} structures: {_listed(names)}; say which ones become which class, such as {{{example}}}"
            )
        return Classes({names[0]: 1}, {1: "class_1"})  # not by its name, which may be another one in the next file
    if not mapping:
        raise ConfigError(
            f"{where}: the mapping from structures to classes is empty; the structures are {_listed(names)}"
        )
    titles = class_titles(mapping)
    values: dict[str, int] = {}
    used: set[str] = set()
    for name in names:
        found = [pattern for pattern in mapping if matches(name, pattern)]
        used.update(found)
        if len({mapping[pattern] for pattern in found}) > 1:
            raise ConfigError(
                f"{where}: structure {name!r} matches patterns of different classes: "
                + ", ".join(f"{pattern!r} (class {mapping[pattern]})" for pattern in found)
                + "; make the patterns narrower"
            )
        if found:
            values[name] = int(mapping[found[0]])
    patterns = list(mapping)
    if not values:
        raise FormatError(f"{where}: none of its structures matches {_listed(patterns)}; they are {_listed(names)}")
    notes = []
    if left := [name for name in names if name not in values]:
        # Not their names: notes are kept with reports, and names are free text of the clinic's.
        notes.append(f"{len(left)} structures match no pattern and were left out")
    if unused := [pattern for pattern in patterns if pattern not in used]:
        notes.append(f"patterns that match no structure: {_listed(unused)}")
    return Classes(values, titles, tuple(notes))


def combine(
    masks: Iterable[tuple[str, npt.NDArray[np.bool_]]],
    classes: Classes,
    *,
    on_overlap: OverlapRule = "error",
    where: str | os.PathLike[str],
) -> dict[str, npt.NDArray[Any]]:
    """Make label volumes of masks. One mask is looked at after the other, so an iterator needs the memory of one.

    Masks of one class are united. No class ever wins over another one silently.

    Args:
        masks: (name, bool (X, Y, Z)). Names without a class are left out.
        classes: The class of each name.
        on_overlap: ``"error"``: one volume, in which each voxel has one class. ``"separate"``: one binary volume for each class, always, so
            that all subjects get the same ones.
        where: The file, for messages.

    Returns:
        ``{"": labels}`` with labels (X, Y, Z) of :attr:`Classes.dtype`, 0 where there is nothing; or, with ``"separate"``, the title of
        each class that has a mask to 0 and 1, uint8 (X, Y, Z). In the masks' memory order.

    Raises:
        ConfigError: No such ``on_overlap``.
        FormatError: Voxels belong to two classes, and ``on_overlap`` is ``"error"``; or no mask has a class.
        ShapeError: Masks differ in shape.
    """
    if on_overlap not in ("error", "separate"):
        raise ConfigError(f"on_overlap={on_overlap!r} is not one of 'error', 'separate'")
    volumes: dict[str, npt.NDArray[Any]] = {}
    members: dict[int, list[str]] = {}
    shared: list[str] = []
    shape: tuple[int, ...] | None = None
    for name, mask in masks:
        number = classes.values.get(name)
        if number is None:
            del mask
            continue
        if shape not in (None, mask.shape):
            raise ShapeError(f"{where}: the mask of {name!r} has shape {mask.shape}, those before it {shape}")
        shape = mask.shape
        members.setdefault(number, []).append(name)
        title, value = ("", number) if on_overlap == "error" else (classes.titles[number], 1)
        if title not in volumes:
            dtype = classes.dtype if on_overlap == "error" else np.dtype(np.uint8)
            volumes[title] = np.zeros_like(mask, dtype, order="K", subok=False)
        taken = _put(volumes[title], mask, value)
        del mask  # before the next one is made
        for other, count in taken.items():
            shared.append(
                f"{name!r} (class {number}) and {_listed(members[other])} (class {other}) share {count} voxels"
            )
    if not volumes:
        raise FormatError(f"{where}: holds no mask of the structures {_listed(classes.values)}")
    if shared:
        raise FormatError(
            f"{where}: structures of different classes overlap: {'; '.join(shared)}; a label volume holds one class for each voxel: use "
            "on_overlap='separate' to get a binary volume for each class, give them the same class, or leave one out"
        )
    return volumes


def _put(labels: npt.NDArray[Any], mask: npt.NDArray[np.bool_], value: int) -> dict[int, int]:
    """Write a class where the mask is; gives how many voxels each other class had there."""
    if mask.flags.f_contiguous:
        labels, mask = labels.T, mask.T  # along memory
    taken: dict[int, int] = {}
    for plane, inside in zip(labels, mask, strict=True):
        if not inside.any():
            continue
        there = plane[inside]
        if there.any():
            others, counts = np.unique(there[(there != 0) & (there != value)], return_counts=True)
            for other, count in zip(others.tolist(), counts.tolist(), strict=True):
                taken[other] = taken.get(other, 0) + count
        plane[inside] = value
    return taken


def class_titles(mapping: Mapping[str, int]) -> dict[int, str]:
    """What to call the collection of each class of a mapping from pattern to class.

    Raises:
        ConfigError: A class is not a whole number from 1 to 65535.
    """
    titles: dict[int, str] = {}
    for pattern, value in mapping.items():
        number = as_whole(value, f"the class of {pattern!r}", minimum=1)
        if number > _HIGHEST:
            raise ConfigError(
                f"the class of {pattern!r} is {number}; {_HIGHEST} is the highest that a label volume holds"
            )
        titles.setdefault(number, _title(pattern, number))
    return _distinct(titles)


def matches(name: str, pattern: str) -> bool:
    """Whether a structure's name is, or fits, a pattern; upper and lower case are the same."""
    name, pattern = name.casefold(), pattern.casefold()
    # As it is first: a name may hold what a glob reads otherwise, such as "GTV[1]".
    return name == pattern or fnmatchcase(name, pattern)


def _title(pattern: str, number: int) -> str:
    """What a pattern leaves for the name of a collection: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", pattern.replace("*", "").replace("?", "")).strip("_-") or f"class_{number}"


def _distinct(titles: Mapping[int, str]) -> dict[int, str]:
    """Titles that differ by more than upper and lower case, because they become names of folders."""
    if len({title.casefold() for title in titles.values()}) == len(titles):
        return dict(titles)
    return {number: f"{title}_{number}" for number, title in titles.items()}


def _listed(names: Iterable[str] | Sequence[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(map(repr, names[:20])) + more
