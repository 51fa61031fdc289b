"""Frames that can be one volume."""

from __future__ import annotations

from dataclasses import dataclass

from radioloader.formats.dicom.frames import Frame

__all__ = ["Dimension", "Stack"]


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
        notes: What a user should know.
    """

    name: str
    slices: tuple[tuple[Frame, ...], ...]
    dimension: Dimension | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> list[Frame]:
        """All frames."""
        return [frame for places in self.slices for frame in places]
