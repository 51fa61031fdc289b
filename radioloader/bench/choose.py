"""Which collections and subjects of a store are measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from radioloader.datasets.table import SubjectTable
from radioloader.errors import ConfigError, GridMismatchError
from radioloader.samplers.random import generator
from radioloader.storage.snapshot import Snapshot

__all__ = ["Choice", "choose"]

_MOST_SUBJECTS = 16
"""Enough for batches that mix volumes; few enough to be brought into memory, and for a table that is made in no time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is measured.

    Attributes:
        image: Image collections, which become channels.
        label: Label collection; None for none.
        subjects: Subjects that are measured.
        available: Subjects that have all of the collections.
        notes: What was chosen, and how to choose otherwise.
    """

    image: tuple[str, ...]
    label: str | None
    subjects: tuple[str, ...]
    available: tuple[str, ...]
    notes: tuple[str, ...]


def choose(
    snapshot: Snapshot, *, image: Sequence[str], label: str | None, with_label: bool = True, seed: int = 0
) -> Choice:
    """Choose what is measured.

    Without ``image``: the image collection that most subjects have, the first by name of several. Without ``label``: the label
    collection, where there is one and only one, on the grid of the images.

    Args:
        snapshot: The store.
        image: Names of image collections; empty to choose one.
        label: Name of the label collection; None to choose one.
        with_label: Whether there shall be labels at all.
        seed: Decides which of many subjects are taken. Give another one each time: what the last run brought into memory would pass for
            the speed of the storage.

    Raises:
        KeyNotFoundError: A collection that was named does not exist.
        ConfigError: No subject has what was named, the store has no images or no subject.
    """
    notes: list[str] = []
    if label is not None and not with_label:
        raise ConfigError(
            f"label={label!r} and with_label=False (--no-label) contradict each other; leave one of them out"
        )
    if label in image:
        raise ConfigError(f"{label!r} is named as an image and as the label; name two collections, or give --no-label")
    for name in (*image, *([] if label is None else [label])):
        snapshot.collection(name)
    if not snapshot.subject_ids:
        raise ConfigError(
            f"there is no subject in {snapshot.store.uri}; fill it with: radioloader ingest {snapshot.store.uri} --image NAME=SOURCE"
        )
    images = tuple(image) or (_first_image(snapshot, notes),)
    guessed = _only_label(snapshot, images, notes) if label is None and with_label else None
    subjects, taken = _sample(snapshot, [*images, *_name(label or guessed)], seed)
    if guessed is not None and (problem := _off_grid(snapshot, images, guessed, taken)):
        notes.append(f"images alone were measured: {problem}")
        guessed = None
        subjects, taken = _sample(snapshot, images, seed)
    label = label or guessed
    left_out = len(_common(snapshot, [*images, *_name(label)])) - len(subjects)
    if left_out:
        notes.append(f"{left_out} subjects are left out: they have another number of time points than most")
    several = len(_having(snapshot, [*images, *_name(label)])) - len(_common(snapshot, [*images, *_name(label)]))
    if several:
        notes.append(f"{several} subjects are left out: they have several volumes in one of the collections")
    return Choice(images, label, tuple(taken), tuple(subjects), tuple(notes))


def _name(label: str | None) -> list[str]:
    return [] if label is None else [label]


def _sample(snapshot: Snapshot, names: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Subjects that have all of the collections, and those of them that are measured."""
    subjects = _alike(snapshot, names)
    if len(subjects) <= _MOST_SUBJECTS:
        return subjects, subjects
    places = generator("bench", seed).choice(len(subjects), _MOST_SUBJECTS, replace=False)
    return subjects, [subjects[place] for place in sorted(places.tolist())]


def _of_kind(snapshot: Snapshot, kind: str) -> list[str]:
    return [name for name, info in snapshot.collections.items() if info.kind == kind]


def _first_image(snapshot: Snapshot, notes: list[str]) -> str:
    names = _of_kind(snapshot, "image")
    if not names:
        labels = ", ".join(map(repr, snapshot.collections)) or "none"
        raise ConfigError(
            f"{snapshot.store.uri} has no image collection (its label collections: {labels}); name what to read as images with --image"
        )
    chosen = max(names, key=lambda name: len(set(snapshot.index(name).subject_ids.tolist())))  # the first of equals
    if len(names) > 1:
        others = ", ".join(repr(name) for name in names if name != chosen)
        notes.append(f"{chosen!r} was chosen; --image NAME measures another one ({others}), or several as channels")
    return chosen


def _only_label(snapshot: Snapshot, images: Sequence[str], notes: list[str]) -> str | None:
    names = [name for name in _of_kind(snapshot, "label") if name not in images]
    if not names:
        return None
    if len(names) > 1:
        listed = ", ".join(map(repr, names))
        notes.append(f"images alone were measured; --label NAME adds labels, one of {listed}")
        return None
    if not _common(snapshot, [*images, names[0]]):
        notes.append(f"images alone were measured: no subject has an image and a label in {names[0]!r}")
        return None
    return names[0]


def _off_grid(snapshot: Snapshot, images: Sequence[str], label: str, subjects: Sequence[str]) -> str:
    """Why the label does not lie on the images' grid; empty when it does."""
    try:
        SubjectTable(snapshot, subjects, image=images, label=label, targets={}, subjects=None, tolerance_mm=0.05)
    except GridMismatchError as error:
        return str(error)
    return ""


def _having(snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Subjects that have volumes in each collection."""
    have = [set(snapshot.index(name).subject_ids.tolist()) for name in names]
    return [subject for subject in snapshot.subject_ids if all(subject in each for each in have)]


def _common(snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Subjects that have one volume in each collection, in the store's order. Which of several a training would take is unknown."""
    counted = [Counter(snapshot.index(name).subject_ids.tolist()) for name in names]
    have = [{subject for subject, count in each.items() if count == 1} for each in counted]
    return [subject for subject in snapshot.subject_ids if all(subject in each for each in have)]


def _alike(snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Subjects that have all of the collections, with as many time points as most have."""
    common = _common(snapshot, names)
    if not common:
        what = "one volume, and not several," if _having(snapshot, names) else "a volume"
        raise ConfigError(
            f"no subject of {snapshot.store.uri} has {what} in each of {', '.join(map(repr, names))}; name other collections"
        )
    indexes = [snapshot.index(name) for name in names]
    points = {
        subject: tuple(int(index.shapes[index.of_subject(subject)[0], 3]) for index in indexes) for subject in common
    }
    ((usual, _),) = Counter(points.values()).most_common(1)
    return [subject for subject in common if points[subject] == usual]
