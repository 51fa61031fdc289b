"""Which label volumes belong to which image: those of the same subject on the same grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radioloader.geometry import grid_distance
from radioloader.overview.facts import CollectionFacts

__all__ = ["Entry", "evenly", "pair", "same_grid"]

Place = tuple[str, int]

_SAME = 0.1
"""Of the smallest distance of voxels: how far apart two grids may lie."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the report.

    Attributes:
        subject: Id of the subject.
        image: Collection and place of the image; None of a label that lies on no image's grid.
        labels: Collections and places of the labels on that grid; those that were read from files come before predictions.
    """

    subject: str
    image: Place | None
    labels: tuple[Place, ...]

    @property
    def volumes(self) -> tuple[Place, ...]:
        """All its volumes, the one that names it first."""
        return (*([] if self.image is None else [self.image]), *self.labels)


def same_grid(a: CollectionFacts, i: int, b: CollectionFacts, j: int) -> bool:
    """Whether volume ``i`` of ``a`` and volume ``j`` of ``b`` have the same spatial shape and lie in the same place."""
    shape = a.index.shapes[i, :3]
    if (shape != b.index.shapes[j, :3]).any():
        return False
    first, second = a.index.affines[i], b.index.affines[j]
    return bool((first == second).all()) or grid_distance(first, second, shape.tolist()) < _SAME * float(
        a.spacings[i].min()
    )


def pair(cohort: dict[str, CollectionFacts]) -> list[Entry]:
    """One entry for each image, and for each label that belongs to none; by subject, then collection."""
    images = [facts for facts in cohort.values() if facts.kind == "image"]
    labels = sorted(
        (facts for facts in cohort.values() if facts.kind == "label"), key=lambda f: (f.info.computed, f.name)
    )
    entries: list[Entry] = []
    paired: dict[str, set[int]] = {facts.name: set() for facts in labels}
    for facts in images:
        for place, subject in enumerate(map(str, facts.index.subject_ids)):
            found = [
                (label.name, other)
                for label in labels
                for other in label.index.of_subject(subject)
                if same_grid(facts, place, label, other)
            ]
            for name, other in found:
                paired[name].add(other)
            entries.append(Entry(subject, (facts.name, place), tuple(found)))
    for facts in labels:
        alone = sorted(set(range(len(facts))) - paired[facts.name])
        entries += [Entry(str(facts.index.subject_ids[place]), None, ((facts.name, place),)) for place in alone]
    return sorted(entries, key=lambda entry: (entry.subject, entry.image is None, entry.volumes[0]))


def evenly(number: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 up to ``number``, evenly spread."""
    if number <= most:
        return list(range(number))
    return [int(place) for place in np.linspace(0, number - 1, most).round()]
