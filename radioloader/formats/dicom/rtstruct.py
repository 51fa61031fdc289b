"""Structure sets (RTSTRUCT): what they outline, and whether that is the image at hand. :mod:`.rasterize` makes masks of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader._optional import require
from radioloader.errors import FormatError, GridMismatchError
from radioloader.formats.dicom._quiet import quiet
from radioloader.formats.dicom.grid import ImageGrid

__all__ = ["CLOSED", "Contour", "ReferencedSeries", "Structure", "StructureSet", "check_reference", "read_rtstruct"]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""The geometric types that enclose an area (PS3.3 C.8.8.6.1)."""

_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage
_CONTOUR_DATA = 0x30060050
_FAR = 1e7  # mm; NaN is not less, either
# All that is read of a file: nothing of the patient is.
_TAGS = [
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One item of a Contour Sequence.

    Attributes:
        points: (n, 3) float64, RAS mm (DICOM's own LPS with the first two turned).
        kind: Contour Geometric Type, such as ``"CLOSED_PLANAR"``.
        images: SOPInstanceUIDs of the images that it was drawn on; empty where the file names none.
    """

    points: npt.NDArray[np.float64]
    kind: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A region of interest (ROI).

    Attributes:
        number: ROI Number, unique in its structure set.
        name: ROI Name without spaces around it; ``"ROI 3"`` where the file has none for number 3. Not always unique.
        frame_of_reference: FrameOfReferenceUID of its coordinates; empty where the file has none.
        contours: As in the file, of every geometric type; empty for a structure that was named and never drawn.
    """

    number: int
    name: str
    frame_of_reference: str
    contours: tuple[Contour, ...]


@dataclass(frozen=True, slots=True)
class ReferencedSeries:
    """A series of images that a structure set was drawn on.

    Attributes:
        frame_of_reference: FrameOfReferenceUID that the series is listed under.
        study: Referenced SOP Instance UID of the study item, which is the StudyInstanceUID.
        series: SeriesInstanceUID.
        images: SOPInstanceUIDs.
    """

    frame_of_reference: str
    study: str
    series: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StructureSet:
    """What a structure set holds, without anything of the patient.

    Attributes:
        instance: SOPInstanceUID of the structure set itself.
        series: SeriesInstanceUID of the structure set itself.
        structures: In the order of the Structure Set ROI Sequence.
        frames_of_reference: FrameOfReferenceUIDs that the set and its structures name.
        references: The series that it was drawn on.
    """

    instance: str
    series: str
    structures: tuple[Structure, ...]
    frames_of_reference: tuple[str, ...]
    references: tuple[ReferencedSeries, ...]


def read_rtstruct(path: str | os.PathLike[str]) -> StructureSet:
    """Read a structure set (PS3.3 A.19; ROIs of C.8.8.5, contours of C.8.8.6).

    Raises:
        FormatError: Not a readable structure set; the message names the file and the structure.
        MissingDependencyError: pydicom is not installed.
    """
    path = Path(path)
    pydicom = require("pydicom", extra="dicom")
    try:
        with quiet():
            # force: planning systems also write the bare data set, without the header of PS3.10. The SOP class tells it from other files.
            return _structure_set(pydicom.dcmread(path, specific_tags=_TAGS, force=True), path)
    except FormatError:
        raise
    except FileNotFoundError:
        raise FormatError(f"{path}: the file does not exist") from None
    except Exception as error:  # pydicom has no root of its errors, and broken bytes raise many kinds
        raise FormatError(f"{path}: broken or truncated structure set: {error}; fetch or export it again") from error


def _structure_set(dataset: Any, path: Path) -> StructureSet:
    for tag in dataset.keys():  # noqa: SIM118 (a dataset iterates over its values)
        element = dataset.get_item(tag)
        # pydicom takes a sequence that ends too early for a shorter one: structures would be missing without a word.
        if isinstance(element.value, bytes) and element.length != 0xFFFFFFFF and len(element.value) < element.length:
            raise FormatError(
                f"{path}: truncated: {len(element.value)} of the {element.length} bytes of {tag} are there; fetch or export it again"
            )
    kind = str(dataset.get("SOPClassUID", ""))
    if kind != _SOP_CLASS:
        found = (
            f"its SOPClassUID is {kind}, not {_SOP_CLASS}" if kind else "no DICOM file, or one without a SOPClassUID"
        )
        raise FormatError(f"{path}: not an RT Structure Set: {found}")
    for keyword in ("StructureSetROISequence", "ROIContourSequence"):
        if not dataset.get(keyword):
            raise FormatError(f"{path}: the structure set has no {keyword}, so it outlines nothing; export it again")
    frames = [
        str(item.get("FrameOfReferenceUID", "")) for item in dataset.get("ReferencedFrameOfReferenceSequence", ())
    ]
    alone = frames[0] if len(set(frames)) == 1 else ""
    rois: dict[int, tuple[str, str]] = {}
    for item in dataset.StructureSetROISequence:
        number = _whole(item, "ROINumber", f"{path}: an item of StructureSetROISequence")
        name = str(item.get("ROIName") or "").strip() or f"ROI {number}"
        if number in rois:
            raise FormatError(
                f"{path}: the structures {rois[number][0]!r} and {name!r} have the same ROINumber {number}"
            )
        rois[number] = name, str(item.get("ReferencedFrameOfReferenceUID") or alone)
    contours: dict[int, tuple[Contour, ...]] = {}
    for item in dataset.ROIContourSequence:
        number = _whole(item, "ReferencedROINumber", f"{path}: an item of ROIContourSequence")
        if number not in rois:
            known = ", ".join(map(str, sorted(rois)))
            raise FormatError(f"{path}: contours of ROI number {number}, but the structures have the numbers {known}")
        where = f"{path}: structure {rois[number][0]!r}"
        if number in contours:
            raise FormatError(f"{where}: has two items in ROIContourSequence; which one is meant is not known")
        items = item.get("ContourSequence") or ()
        contours[number] = tuple(_contour(c, f"{where}, contour {i}") for i, c in enumerate(items, 1))
    structures = tuple(Structure(n, name, frame, contours.get(n, ())) for n, (name, frame) in rois.items())
    named = (*frames, *(structure.frame_of_reference for structure in structures))
    return StructureSet(
        instance=str(dataset.get("SOPInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        structures=structures,
        frames_of_reference=tuple(dict.fromkeys(filter(None, named))),
        references=tuple(_references(dataset)),
    )


def _references(dataset: Any) -> Iterator[ReferencedSeries]:
    """PS3.3 C.8.8.5: Referenced Frame of Reference > RT Referenced Study > RT Referenced Series > Contour Image Sequence."""
    for frame in dataset.get("ReferencedFrameOfReferenceSequence", ()):
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield ReferencedSeries(
                    frame_of_reference=str(frame.get("FrameOfReferenceUID", "")),
                    study=str(study.get("ReferencedSOPInstanceUID", "")),
                    series=str(series.get("SeriesInstanceUID", "")),
                    images=_images(series),
                )


def _images(item: Any) -> tuple[str, ...]:
    found = (str(image.get("ReferencedSOPInstanceUID", "")) for image in item.get("ContourImageSequence") or ())
    return tuple(filter(None, found))


def _contour(item: Any, where: str) -> Contour:
    offset = item.get("ContourOffsetVector")
    if offset is not None and any(float(value) for value in offset):
        # PS3.3 C.8.8.6.2, retired: the area lies beside its points.
        raise FormatError(
            f"{where}: moved by a ContourOffsetVector {list(offset)}, which is not supported; export it without"
        )
    kind = str(item.get("ContourGeometricType") or "").strip().upper()
    if not kind:
        raise FormatError(f"{where}: has no ContourGeometricType, so it is not known whether it encloses an area")
    values = _numbers(item, where)
    if values.size % 3:
        raise FormatError(f"{where}: ContourData holds {values.size} numbers, which are not (x, y, z) triplets")
    if "NumberOfContourPoints" in item:
        count = _whole(item, "NumberOfContourPoints", where)
        if count != values.size // 3:
            raise FormatError(
                f"{where}: ContourData holds {values.size // 3} points, but NumberOfContourPoints is {count}"
            )
    if not (np.abs(values) < _FAR).all():
        bad = values[~(np.abs(values) < _FAR)][0]
        raise FormatError(f"{where}: ContourData holds {bad}, which is no place in mm")
    return Contour(values.reshape(-1, 3) * (-1.0, -1.0, 1.0), kind, _images(item))


def _numbers(item: Any, where: str) -> npt.NDArray[np.float64]:
    """ContourData, LPS mm. pydicom would make an object of every number, ten times slower, so the text is parsed here. That also takes in
    contours of more than 65534 bytes, which files of an explicit VR can only hold under the VR UN."""
    element = item.get_item(_CONTOUR_DATA)
    value = None if element is None else element.value
    if value is None or len(value) == 0:
        raise FormatError(f"{where}: has no ContourData")
    parts = value.split(b"\\") if isinstance(value, bytes) else [str(part) for part in value]
    try:
        return np.array([float(part) for part in parts])
    except ValueError as error:
        raise FormatError(f"{where}: ContourData holds something else than numbers: {error}") from None


def _whole(item: Any, keyword: str, where: str) -> int:
    value = item.get(keyword)
    if value is None:
        raise FormatError(f"{where}: has no {keyword}")
    return int(value)


def check_reference(
    structure_set: StructureSet,
    grid: ImageGrid,
    *,
    where: str | os.PathLike[str],
    structures: Sequence[Structure] | None = None,
) -> tuple[str, ...]:
    """Check that structures were drawn on the images of a grid, or at least in their coordinates.

    A structure belongs to a grid when its frame of reference is that of the images, when the set references their series (under the
    structure's own frame of reference, if it has one), or when its contours name one of their instances. Coordinates are what counts:
    instances that the grid does not know (of a cropped or renamed series, say) are no error.

    Args:
        structure_set: As read.
        grid: The grid of the images.
        where: The file, for messages.
        structures: The ones that will be used; None checks all of the set.

    Returns:
        Notes: what a user should know, each once.

    Raises:
        GridMismatchError: A structure belongs to other images; the message names both series and both frames of reference.
    """
    known = {instance for frames in grid.slices for instance, _ in frames}
    notes: list[str] = []
    for structure in structure_set.structures if structures is None else structures:
        frame = structure.frame_of_reference
        same_frame = bool(frame) and frame == grid.frame_of_reference
        by_series = any(
            reference.series == grid.series and frame in ("", reference.frame_of_reference)
            for reference in structure_set.references
        )
        images = {image for contour in structure.contours for image in contour.images}
        by_image = not images.isdisjoint(known)
        if not (same_frame or by_series or by_image):
            raise GridMismatchError(
                f"{where}: structure {structure.name!r} was not drawn on the images of series {grid.series} with frame of reference "
                f"{grid.frame_of_reference or '(none)'}: it has the frame of reference {frame or '(none)'}, and the set references "
                f"the series {_listed(r.series for r in structure_set.references)}; give the series that it was drawn on"
            )
        if not same_frame and frame and grid.frame_of_reference:
            notes.append(
                f"structure {structure.name!r} has the frame of reference {frame}, its images have {grid.frame_of_reference}; "
                "it was taken as theirs, because the set references them"
            )
        if not by_series and not by_image:
            notes.append(
                f"structure {structure.name!r} was drawn on another series of the same frame of reference: "
                + _listed(r.series for r in structure_set.references if r.frame_of_reference == frame)
            )
        elif unknown := len(images - known):
            notes.append(
                f"structure {structure.name!r} names {unknown} of {len(images)} images by a SOPInstanceUID that the series does not have; "
                "where it lies was taken from its coordinates"
            )
    return tuple(dict.fromkeys(notes))


def _listed(uids: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, uids))) or "(none)"
