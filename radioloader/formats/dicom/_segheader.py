"""What the header of a DICOM segmentation (SEG) says: its segments, what it refers to, and where each frame lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError, RadioloaderError
from radioloader.formats.dicom._quiet import quiet

__all__ = ["LPS", "Code", "SegFrame", "SegHeader", "SegInfo", "Segment", "explained", "parse_header"]

LPS = np.array([-1.0, -1.0, 1.0])
"""Turns DICOM's patient coordinates (LPS, mm) into RAS mm and back."""

_SEG, _LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_FAR = 1e6  # mm
_SURFACE = "1.2.840.10008.5.1.4.1.1.66.5"
# PS3.3 C.8.20.2.1 allows the first of each; the others are written all the same, and nothing about them is unclear.
_BITS = {"BINARY": (1, 8), "FRACTIONAL": (8, 16), "LABELMAP": (8, 16)}


class Code(NamedTuple):
    """A coded concept (PS3.3 section 8.8), such as ``Code("85756007", "SCT", "Tissue")``."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a SEG (PS3.3 C.8.20.4).

    Attributes:
        number: Segment Number; of a LABELMAP the value of its pixels.
        label: Segment Label; ``"segment <number>"`` where the file has none.
        category: Segmented Property Category, such as "Tissue"; None when the file has none.
        kind: Segmented Property Type, such as "Liver"; None when the file has none.
        algorithm: ``"AUTOMATIC"``, ``"SEMIAUTOMATIC"``, ``"MANUAL"`` or empty.
    """

    number: int
    label: str
    category: Code | None = None
    kind: Code | None = None
    algorithm: str = ""


@dataclass(frozen=True, slots=True)
class SegInfo:
    """What a SEG is and what it refers to. Holds no patient data.

    Attributes:
        segmentation_type: ``"BINARY"``, ``"FRACTIONAL"`` or ``"LABELMAP"``.
        fractional_type: ``"PROBABILITY"`` or ``"OCCUPANCY"`` for FRACTIONAL, otherwise empty.
        segments: The segments in the file's order, without the background of a LABELMAP.
        frame_of_reference: FrameOfReferenceUID; empty when the file has none.
        study: StudyInstanceUID.
        series: The SEG's own SeriesInstanceUID.
        sop_instance: The SEG's own SOPInstanceUID.
        sop_class: SOPClassUID: Segmentation Storage or Label Map Segmentation Storage.
        referenced_series: SeriesInstanceUIDs of the images that it was made from.
        referenced_instances: SOPInstanceUIDs of these images.
        frames: Number of frames.
        notes: What a user should know about this file.
    """

    segmentation_type: str
    fractional_type: str
    segments: tuple[Segment, ...]
    frame_of_reference: str
    study: str
    series: str
    sop_instance: str
    sop_class: str
    referenced_series: tuple[str, ...]
    referenced_instances: tuple[str, ...]
    frames: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SegFrame:
    """Where one frame lies.

    Attributes:
        index: Place in the pixel data, from 0.
        segment: Segment Number; None for LABELMAP, whose frames show all segments.
        position: (3,) RAS mm, centre of the first pixel; None when the file does not say.
        across: (3,) RAS mm, from a pixel to the next one in its row; None when the file does not say.
        down: (3,) RAS mm, from a pixel to the next one in its column; None when the file does not say.
        sources: SOPInstanceUID and frame number from 0 (None: the whole instance) of the images it was made from.
    """

    index: int
    segment: int | None
    position: npt.NDArray[np.float64] | None
    across: npt.NDArray[np.float64] | None
    down: npt.NDArray[np.float64] | None
    sources: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class SegHeader:
    """A SEG but its pixels.

    Attributes:
        info: What users see of it.
        rows: Rows of a frame.
        columns: Columns of a frame.
        bits: Bits per pixel: 1, 8 or 16.
        whole: Value of FRACTIONAL that means 1 (MaximumFractionalValue); otherwise 1.
        background: Value of LABELMAP that means no segment; otherwise 0.
        frames: All frames.
    """

    info: SegInfo
    rows: int
    columns: int
    bits: int
    whole: int
    background: int
    frames: tuple[SegFrame, ...]


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of reading the DICOM file ``path`` become a FormatError that names it."""
    from pydicom.errors import InvalidDicomError

    try:
        with quiet():
            yield
    except RadioloaderError:
        raise
    except InvalidDicomError as error:
        raise FormatError(f"{path}: not a DICOM file (no DICM after its preamble)") from error
    except OSError as error:
        raise FormatError(f"{path}: could not be read: {error.strerror or error}") from error
    except Exception as error:  # pydicom raises whatever a broken header makes its parsers trip over
        raise FormatError(
            f"{path}: broken DICOM file ({type(error).__name__}: {error}); export or download it again"
        ) from error


def parse_header(dataset: Any, path: str | os.PathLike[str]) -> SegHeader:
    """The header of a SEG.

    Args:
        dataset: pydicom's dataset of the file; pixels are not looked at.
        path: For messages.

    Raises:
        FormatError: Not a SEG, or one that cannot be used. Other errors of a broken header are for :func:`explained`.
    """
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class == _SURFACE:
        raise FormatError(f"{path}: a Surface Segmentation holds meshes, not voxels; export it as a Segmentation")
    if sop_class not in (_SEG, _LABELMAP):
        raise FormatError(
            f"{path}: not a segmentation (SEG): SOPClassUID is {sop_class or 'missing'}, modality {dataset.get('Modality', 'missing')}"
        )
    kind = str(dataset.get("SegmentationType", ""))
    bits = int(dataset.BitsAllocated)
    if kind not in _BITS:
        raise FormatError(f"{path}: SegmentationType is {kind!r}, expected one of {', '.join(_BITS)}")
    if bits not in _BITS[kind] or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise FormatError(
            f"{path}: {dataset.get('SamplesPerPixel', 1)} x {bits} bits per pixel; {kind} has one sample of "
            f"{' or '.join(map(str, _BITS[kind]))} bits"
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    count = int(dataset.get("NumberOfFrames") or 1)
    if min(rows, columns, count) < 1:
        raise FormatError(f"{path}: {count} frames of {rows} x {columns} pixels; there must be at least one of each")
    whole = 1
    if kind == "FRACTIONAL":
        whole = int(dataset.MaximumFractionalValue)
        if whole < 1:
            raise FormatError(f"{path}: MaximumFractionalValue is {whole}, expected at least 1")
    background = _background(dataset) if kind == "LABELMAP" else 0
    segments = tuple(_segments(dataset, path, background if kind == "LABELMAP" else None))
    values = [background, *(segment.number for segment in segments)]
    if min(values) < 0 or (kind == "LABELMAP" and max(values) >= 2**bits):
        raise FormatError(f"{path}: segment numbers {min(values)} to {max(values)} do not fit into {bits} bits")
    items = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if len(items) < count:
        raise FormatError(
            f"{path}: {count} frames, but places (PerFrameFunctionalGroupsSequence) for {len(items)}; tiled slide images are not supported"
        )
    if len(items) > count:
        raise FormatError(
            f"{path}: NumberOfFrames is {count}, but PerFrameFunctionalGroupsSequence describes {len(items)} frames: parts of the "
            "structures would be missing; export it anew"
        )
    if "ConcatenationUID" in dataset:
        raise FormatError(
            f"{path}: one part of a segmentation that was split over several files (a concatenation, ConcatenationUID), which is not "
            "supported: the rest of the structures would be missing; export it as one file"
        )
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    frames = tuple(_frame(index, items[index], shared, kind, path) for index in range(count))
    unknown = {frame.segment for frame in frames} - {segment.number for segment in segments} - {None}
    if unknown:
        raise FormatError(
            f"{path}: frames of segment {', '.join(map(str, sorted(map(str, unknown))))}, which SegmentSequence does not describe"
        )
    series, instances = _references(dataset, frames)
    info = SegInfo(
        segmentation_type=kind,
        fractional_type=str(dataset.get("SegmentationFractionalType", "")) if kind == "FRACTIONAL" else "",
        segments=segments,
        frame_of_reference=str(dataset.get("FrameOfReferenceUID") or ""),
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        sop_instance=str(dataset.get("SOPInstanceUID") or ""),
        sop_class=sop_class,
        referenced_series=series,
        referenced_instances=instances,
        frames=count,
    )
    return SegHeader(info, rows, columns, bits, whole, background, frames)


def _background(dataset: Any) -> int:
    """The value of a LABELMAP that means nothing (PS3.3 C.8.20.2.3): PixelPaddingValue, or else what is coded as background, or 0."""
    if dataset.get("PixelPaddingValue") is not None:
        return int(dataset.PixelPaddingValue)
    for item in dataset.SegmentSequence:
        code = _code(item, "SegmentedPropertyTypeCodeSequence")
        if code is not None and code[:2] == ("125040", "DCM"):
            return int(item.SegmentNumber)
    return 0


def _segments(dataset: Any, path: str | os.PathLike[str], background: int | None) -> Iterator[Segment]:
    seen = set()
    for item in dataset.SegmentSequence:
        number = int(item.SegmentNumber)
        if number in seen:
            raise FormatError(f"{path}: SegmentSequence describes segment {number} twice")
        seen.add(number)
        if number != background:
            yield Segment(
                number=number,
                label=str(item.get("SegmentLabel") or "").strip() or f"segment {number}",
                category=_code(item, "SegmentedPropertyCategoryCodeSequence"),
                kind=_code(item, "SegmentedPropertyTypeCodeSequence"),
                algorithm=str(item.get("SegmentAlgorithmType") or ""),
            )


def _code(item: Any, keyword: str) -> Code | None:
    codes = item.get(keyword)
    if not codes:
        return None
    value = codes[0].get("CodeValue") or codes[0].get("LongCodeValue") or codes[0].get("URNCodeValue") or ""
    return Code(str(value), str(codes[0].get("CodingSchemeDesignator") or ""), str(codes[0].get("CodeMeaning") or ""))


def _frame(index: int, item: Any, shared: Any, kind: str, path: str | os.PathLike[str]) -> SegFrame:
    """A functional group is per frame or shared by all of them (PS3.3 C.7.6.16)."""

    def group(keyword: str) -> Any:
        found = item.get(keyword) or (shared.get(keyword) if shared is not None else None)
        return found[0] if found else None

    if item.get("PlanePositionSlideSequence"):
        raise FormatError(f"{path}: a segmentation of a microscope slide; only those of 3D images are supported")
    segment = None
    if kind != "LABELMAP":
        identification = group("SegmentIdentificationSequence")
        if identification is None:
            raise FormatError(
                f"{path}: frame {index + 1} does not say which segment it shows (SegmentIdentificationSequence)"
            )
        segment = int(identification.ReferencedSegmentNumber)
    position = across = down = None
    plane, orientation, measures = (
        group(keyword) for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    )
    if orientation is not None and measures is not None:
        cosines = np.array(orientation.ImageOrientationPatient, np.float64).reshape(2, 3)
        between_rows, between_columns = (float(value) for value in measures.PixelSpacing)
        across, down = cosines[0] * LPS * between_columns, cosines[1] * LPS * between_rows
        _check_place([across, down], index, path)
    if plane is not None:
        position = np.array(plane.ImagePositionPatient, np.float64).reshape(3) * LPS
        _check_place([position], index, path)
    sources: list[tuple[str, int | None]] = []
    for derivation in item.get("DerivationImageSequence") or ():
        for source in derivation.get("SourceImageSequence") or ():
            numbers = source.get("ReferencedFrameNumber")
            uid = str(source.ReferencedSOPInstanceUID)
            if numbers is None:
                sources.append((uid, None))
            else:
                sources += [(uid, int(n) - 1) for n in (numbers if hasattr(numbers, "__iter__") else [numbers])]
    return SegFrame(index, segment, position, across, down, tuple(sources))


def _check_place(vectors: list[npt.NDArray[np.float64]], index: int, path: str | os.PathLike[str]) -> None:
    if any(not (np.abs(vector) < _FAR).all() for vector in vectors):  # NaN as well
        raise FormatError(
            f"{path}: the place of frame {index + 1} holds values that are too large for mm, or not finite"
        )
    if len(vectors) == 2:
        a, b = vectors
        if np.linalg.norm(np.cross(a, b)) <= 1e-6 * np.linalg.norm(a) * np.linalg.norm(b):
            raise FormatError(f"{path}: the rows and columns of frame {index + 1} do not span a plane")


def _references(dataset: Any, frames: tuple[SegFrame, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """UIDs of the series and the instances that a SEG refers to (PS3.3 C.12.1.1.16 and the frames' own references)."""
    series: dict[str, None] = {}
    instances: dict[str, None] = {}
    studies = dataset.get("StudiesContainingOtherReferencedInstancesSequence") or ()
    for holder in (dataset, *studies):
        for item in holder.get("ReferencedSeriesSequence") or ():
            series[str(item.SeriesInstanceUID)] = None
            for instance in item.get("ReferencedInstanceSequence") or ():
                instances[str(instance.ReferencedSOPInstanceUID)] = None
    for item in dataset.get("SourceImageSequence") or ():
        instances[str(item.ReferencedSOPInstanceUID)] = None
    for frame in frames:
        instances.update((uid, None) for uid, _ in frame.sources)
    return tuple(series), tuple(instances)
