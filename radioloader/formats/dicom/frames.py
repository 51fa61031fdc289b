"""What the headers of DICOM files say, as plain values: one record for each frame of pixels.

A record holds no dataset: hundreds of thousands of them lie in memory while a folder is sorted, and they travel between processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LOSSY", "Frame", "Ignored", "Instance", "Pixels", "SeriesFacts", "Tile"]

Vector = tuple[float, ...]

LOSSY = {f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 81, 91, 203)}
"""Transfer syntaxes (PS3.6 Table A-1) that may have changed the pixels."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the pixels of a frame are kept (PS3.3 C.7.6.3).

    Attributes:
        rows: Rows of a frame.
        columns: Columns of a frame.
        photometric: PhotometricInterpretation.
        allocated: BitsAllocated.
        stored: BitsStored.
        high_bit: HighBit.
        signed: Whether values are in two's complement.
        floating: ``""``, or ``"float32"`` or ``"float64"`` for Float and Double Float Pixel Data.
        syntax: TransferSyntaxUID.
    """

    rows: int
    columns: int
    photometric: str
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    floating: str
    syntax: str


@dataclass(frozen=True, slots=True)
class Tile:
    """Part of a frame that is a picture of its own (Siemens mosaic), in pixels.

    Attributes:
        row: First row.
        column: First column.
        rows: Number of rows.
        columns: Number of columns.
    """

    row: int
    column: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What is the same for all frames of a series, from its first instance.

    Attributes:
        patient: PatientID and its issuer; only in memory, to tell patients apart.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        modality: Modality.
        number: SeriesNumber; None when there is none.
        description: SeriesDescription; only in memory, to select by.
        tags: What is kept of the header, by keyword.
    """

    patient: tuple[str, str]
    study: str
    series: str
    modality: str
    number: int | None
    description: str
    tags: Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of pixels, or one tile of it.

    Attributes:
        path: Its file.
        number: Its number in the file, from 0.
        sop: SOPInstanceUID of the file.
        position: ImagePositionPatient: centre of pixel (0, 0), in LPS mm.
        orientation: ImageOrientationPatient: direction cosines along a row, then along a column.
        spacing: PixelSpacing: between rows, between columns, in mm.
        pixels: How its pixels are kept.
        slope: Rescale slope.
        intercept: Rescale intercept.
        instance: InstanceNumber; None when there is none. Never orders slices.
        frame_of_reference: FrameOfReferenceUID.
        thickness: Distance of slices as the header claims it (SpacingBetweenSlices, else SliceThickness), in mm; 0 when it does not.
        kind: What makes frames pictures of different things, by name: ``"component"`` (magnitude, phase, ...), ``"echo"``, ...
        index: What orders pictures of the same thing at one position, by name: ``"time"``, ``"b-value"``, ...
        tile: Which part of the frame.
        rescaled: Whether the header has a rescale at all.
    """

    path: str
    number: int
    sop: str
    position: Vector
    orientation: Vector
    spacing: Vector
    pixels: Pixels
    slope: float
    intercept: float
    instance: int | None
    frame_of_reference: str
    thickness: float
    kind: tuple[tuple[str, str], ...]
    index: tuple[tuple[str, float | str], ...]
    tile: Tile | None = None
    rescaled: bool = True

    @property
    def picture(self) -> tuple[int, int]:
        """Rows and columns of it, or of its tile."""
        shown = self.pixels if self.tile is None else self.tile
        return shown.rows, shown.columns


@dataclass(frozen=True, slots=True)
class Instance:
    """A DICOM file that can be used.

    Attributes:
        path: The file.
        facts: What it shares with its series.
        what: ``"image"``, ``"seg"`` or ``"rtstruct"``.
        sop: SOPInstanceUID.
        sop_class: SOPClassUID.
        size: Bytes of the file.
        modified: When it was last changed, in ns.
        frames: The frames of an image.
        problem: Why the image cannot be used; empty when it can.
        names: Of a label: number and name of each structure; only in memory and in messages.
        images: Of a label: SeriesInstanceUIDs of the images that it refers to.
        pictures: Of a label: SOPInstanceUIDs of the instances that it refers to.
        frame_of_reference: Of a label: FrameOfReferenceUID.
    """

    path: str
    facts: SeriesFacts
    what: str
    sop: str
    sop_class: str
    size: int
    frames: tuple[Frame, ...] = ()
    problem: str = ""
    names: tuple[tuple[int, str], ...] = ()
    images: tuple[str, ...] = ()
    pictures: frozenset[str] = frozenset()
    frame_of_reference: str = ""
    modified: int = 0


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file that holds no image and no label.

    Attributes:
        path: The file.
        reason: Why it is left out.
        broken: Whether it should have been usable: it claims to be DICOM and cannot be read.
    """

    path: str
    reason: str
    broken: bool = field(default=False)
