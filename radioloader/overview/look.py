"""Looking at one entry of the report: its values, and its picture. What cannot be read is told and stops nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from radioloader.errors import RadioloaderError
from radioloader.overview.facts import CollectionFacts
from radioloader.overview.measure import Measured, VolumeVoxels, focus_of, measure
from radioloader.overview.pairing import Entry, Place
from radioloader.overview.pictures import CT_WINDOW, class_colours, encode
from radioloader.overview.planes import Plane, middle_of, planes
from radioloader.storage.reader import VolumeReader, unshared
from radioloader.storage.snapshot import Snapshot

__all__ = ["CLASSES_SHOWN", "Look", "View", "Viewer", "window_of"]

CLASSES_SHOWN = 12
"""Classes that the legend of a picture names, at most."""

_CT_NAME = re.compile(r"(^|[^a-z])ct([^a-z]|$)", re.IGNORECASE)
_CT_BELOW = -500.0
"""HU that only CT goes below: air is -1000."""


@dataclass(slots=True)
class View:
    """What is to be seen of an entry.

    Attributes:
        planes: The three planes; none where they were not wanted or cannot be read.
        measured: Values of the image; None where there is no image or it cannot be read.
        window: Values that are black and white.
        errors: Why volumes cannot be read, by collection and place.
    """

    planes: list[Plane] = field(default_factory=list)
    measured: Measured | None = None
    window: tuple[float, float] = (0.0, 1.0)
    errors: dict[Place, RadioloaderError] = field(default_factory=dict)

    @contextmanager
    def reading(self, place: Place) -> Iterator[None]:
        """Note what goes wrong with a volume in the block, and go on."""
        try:
            yield
        except RadioloaderError as error:
            self.errors[place] = error


@dataclass(frozen=True, slots=True)
class Look:
    """What is kept of the view of an entry.

    Attributes:
        picture: A compressed picture; None where there is none.
        measured: As in :class:`View`.
        window: As in :class:`View`.
        unreadable: Why volumes cannot be read, by collection and place.
    """

    picture: bytes | None
    measured: Measured | None
    window: tuple[float, float]
    unreadable: dict[Place, str]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Looks at entries of one store; may be used by several threads.

    Args:
        snapshot: The store.
        cohort: Its facts.
        reader: Reads voxels.
    """

    snapshot: Snapshot
    cohort: Mapping[str, CollectionFacts]
    reader: VolumeReader

    def prepare(self) -> None:
        """Read the columns that all looks need, before threads ask for them at once."""
        for name in self.cohort:
            self.snapshot.tiles(name)
            self.snapshot.optional_detail(name, "occupied")

    def look(self, entry: Entry, *, most: int | None) -> Look:
        """Measure an entry's image, and make its picture in at most ``most`` bytes; None makes none."""
        with unshared():
            seen = self.view(entry, drawn=most is not None)
        picture = None
        if most is not None and seen.planes:
            picture = encode(seen.planes, window=seen.window, colours=self.colours(entry), most=most)
        return Look(picture, seen.measured, seen.window, {place: str(error) for place, error in seen.errors.items()})

    def view(self, entry: Entry, *, drawn: bool = True) -> View:
        """Measure an entry's image, and cut its planes where they are ``drawn``."""
        seen = View()
        image = label = focus = None
        if entry.image is not None:
            with seen.reading(entry.image):
                image = self._open(entry.image)
                seen.measured = measure(image)
            if seen.errors:
                return seen
            name, number = entry.image
            seen.window = window_of(self.cohort[name], number, seen.measured)
        if not drawn:
            return seen
        shown = self.shown_label(entry)
        if shown is not None:
            with seen.reading(shown):
                opened = self._open(shown)
                focus = focus_of(opened)
                label = opened
        if image is None and label is None:
            return seen
        name, number = entry.volumes[0]
        facts = self.cohort[name]
        if focus is None:
            occupied = self.snapshot.optional_detail(name, "occupied")[number]
            focus = middle_of(occupied, facts.index.shapes[number])
        with seen.reading((name, number)):
            seen.planes = planes(
                image, label, axcodes=facts.index.axcodes(number), spacing=facts.spacings[number].tolist(), focus=focus
            )
        return seen

    def shown_label(self, entry: Entry) -> Place | None:
        """The label that is drawn: the first that is not empty, or the first; None where there is none."""
        filled = (place for place in entry.labels if self.cohort[place[0]].nonzero[place[1]])
        return next(filled, entry.labels[0] if entry.labels else None)

    def colours(self, entry: Entry) -> dict[int, str]:
        """Colour of each class of the label that is drawn, the same for the whole collection."""
        shown = self.shown_label(entry)
        return {} if shown is None else class_colours(self.cohort[shown[0]].class_values)

    def _open(self, place: Place) -> VolumeVoxels:
        name, number = place
        x, y, z = self.snapshot.tiles(name)[number].tolist()
        return VolumeVoxels(self.reader, self.cohort[name].index.ref(number), (x, y, z))


def window_of(facts: CollectionFacts, place: int, measured: Measured) -> tuple[float, float]:
    """Values that are black and white: of CT soft tissue, else the 1st and the 99th percentile (all values where those are one)."""
    name, modality = facts.name, facts.modality[place]
    known = modality is not None and bool(str(modality))
    is_ct = str(modality) == "CT" if known else bool(_CT_NAME.search(name)) or facts.low[place] < _CT_BELOW
    if is_ct:
        return CT_WINDOW
    if not measured.percentiles:
        return (0.0, 1.0)
    low, high = measured.percentiles[0], measured.percentiles[-1]
    if low < high:
        return low, high
    low, high = float(facts.low[place]), float(facts.high[place])
    return (low, high) if low < high else (low - 1, low + 1)
