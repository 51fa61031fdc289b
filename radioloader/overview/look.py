"""Looking at one entry of the report: its values, and its picture. What cannot be read is told and stops nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from radioloader.errors import RadioloaderError
from radioloader.overview.facts import CollectionFacts
from radioloader.overview.measure import Measured, VolumeVoxels, focus_of, measure
from radioloader.overview.pairing import Entry, Place
from radioloader.overview.pictures import CT_WINDOW, class_colours, encode
from radioloader.overview.planes import Plane, middle_of, planes
from radioloader.storage.reader import VolumeReader, unshared
from radioloader.storage.snapshot import Snapshot

__all__ = ["CLASSES_SHOWN", "Look", "Viewer", "window_of"]

CLASSES_SHOWN = 12
"""Classes that the legend of a picture names, at most."""

_CT_NAME = re.compile(r"(^|[^a-z])ct([^a-z]|$)", re.IGNORECASE)
_CT_BELOW = -500.0
"""HU that only CT goes below: air is -1000."""


@dataclass(slots=True)
class Look:
    """What was seen of an entry.

    Attributes:
        picture: A compressed picture; None where there is none.
        measured: Values of the image; None where there is no image or it cannot be read.
        window: Values that are black and white in the picture.
        unreadable: Reasons why volumes cannot be read, by collection and place.
    """

    picture: bytes | None = None
    measured: Measured | None = None
    window: tuple[float, float] = (0.0, 1.0)
    unreadable: dict[Place, str] = field(default_factory=dict)


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
        found = Look()
        with unshared():
            image = None if entry.image is None else self._open(entry.image, found)
            if image is not None and entry.image is not None:
                try:
                    found.measured = measure(image)
                except RadioloaderError as error:
                    found.unreadable[entry.image] = str(error)
            if most is not None and (entry.image is None or found.measured is not None):
                found.window = self.window(entry, found.measured)
                cut = self._planes(entry, image, found)
                if cut is not None:
                    found.picture = encode(cut, window=found.window, colours=self.colours(entry), most=most)
        return found

    def planes(self, entry: Entry) -> tuple[list[Plane], tuple[float, float]]:
        """The three planes of an entry, and their window.

        Raises:
            ReadError: A volume cannot be read.
        """
        found = Look()
        image = None if entry.image is None else self._open(entry.image, None)
        measured = None if image is None else measure(image)
        cut = self._planes(entry, image, None)
        assert cut is not None
        found.window = self.window(entry, measured)
        return cut, found.window

    def shown_label(self, entry: Entry) -> Place | None:
        """The label that is drawn: the first that is not empty, or the first; None where there is none."""
        filled = (place for place in entry.labels if self.cohort[place[0]].nonzero[place[1]])
        return next(filled, entry.labels[0] if entry.labels else None)

    def colours(self, entry: Entry) -> dict[int, str]:
        """Colour of each class of the label that is drawn, the same for the whole collection."""
        shown = self.shown_label(entry)
        return {} if shown is None else class_colours(self.cohort[shown[0]].class_values)

    def classes_of(self, label: Place) -> list[int]:
        """The classes that a label volume has, other than the background; those of maps with very many classes are not known."""
        places, values, voxels = self.cohort[label[0]].class_rows
        return [int(value) for value in values[(places == label[1]) & (values != 0) & (voxels > 0)]]

    def window(self, entry: Entry, measured: Measured | None) -> tuple[float, float]:
        """See :func:`window_of`; of a label alone (0, 1)."""
        if entry.image is None or measured is None:
            return (0.0, 1.0)
        return window_of(self.cohort[entry.image[0]], entry.image[1], measured)

    def _open(self, place: Place, found: Look | None) -> VolumeVoxels | None:
        """The volume; None where it cannot be read, and that is noted in ``found``. Without ``found`` the error goes on."""
        name, number = place
        x, y, z = self.snapshot.tiles(name)[number].tolist()
        try:
            return VolumeVoxels(self.reader, self.cohort[name].index.ref(number), (x, y, z))
        except RadioloaderError as error:
            if found is None:
                raise
            found.unreadable[place] = str(error)
            return None

    def _planes(self, entry: Entry, image: VolumeVoxels | None, found: Look | None) -> list[Plane] | None:
        shown = self.shown_label(entry)
        name, number = entry.volumes[0]
        facts = self.cohort[name]
        label, focus = None, None
        try:
            label = None if shown is None else self._open(shown, found)
            focus = None if label is None else focus_of(label)
        except RadioloaderError as error:
            if found is None or shown is None:
                raise
            found.unreadable[shown] = str(error)
            label = None
        if image is None and label is None:
            return None
        if focus is None:
            occupied = self.snapshot.optional_detail(name, "occupied")[number]
            focus = middle_of(occupied, facts.index.shapes[number])
        try:
            return planes(
                image, label, axcodes=facts.index.axcodes(number), spacing=facts.spacings[number].tolist(), focus=focus
            )
        except RadioloaderError as error:
            if found is None:
                raise
            found.unreadable[entry.volumes[0]] = str(error)
            return None


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
