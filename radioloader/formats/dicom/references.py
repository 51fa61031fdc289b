"""Which images a segmentation or a structure set is about, and what it outlines; without its contours or pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from radioloader.formats.dicom.values import integer, item, text

__all__ = ["references"]


def references(dataset: Any, what: str) -> dict[str, Any]:
    """Fields of an :class:`~radioloader.formats.dicom.frames.Instance`: ``names``, ``images``, ``pictures``, ``frame_of_reference``.

    Args:
        dataset: The header.
        what: ``"seg"`` (PS3.3 A.51, C.8.20) or ``"rtstruct"`` (PS3.3 A.19.3, C.8.8.5).
    """
    series, pictures = set[str](), set[str]()
    frames = [text(dataset, "FrameOfReferenceUID")]
    if what == "seg":
        names = [
            (integer(segment, "SegmentNumber") or 0, text(segment, "SegmentLabel"))
            for segment in dataset.get("SegmentSequence") or ()
        ]
        for one in dataset.get("ReferencedSeriesSequence") or ():
            series.add(text(one, "SeriesInstanceUID"))
            pictures |= {
                text(instance, "ReferencedSOPInstanceUID") for instance in one.get("ReferencedInstanceSequence") or ()
            }
        pictures |= set(_sources(dataset))
    else:
        names = [
            (integer(roi, "ROINumber") or 0, text(roi, "ROIName"))
            for roi in dataset.get("StructureSetROISequence") or ()
        ]
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
            frames.append(text(frame, "FrameOfReferenceUID"))
            for study in frame.get("RTReferencedStudySequence") or ():
                for one in study.get("RTReferencedSeriesSequence") or ():
                    series.add(text(one, "SeriesInstanceUID"))
                    pictures |= {
                        text(image, "ReferencedSOPInstanceUID") for image in one.get("ContourImageSequence") or ()
                    }
        frames += [text(roi, "ReferencedFrameOfReferenceUID") for roi in dataset.get("StructureSetROISequence") or ()]
    return {
        "names": tuple(names),
        "images": tuple(sorted(series - {""})),
        "pictures": frozenset(pictures - {""}),
        "frame_of_reference": next((frame for frame in frames if frame), ""),
    }


def _sources(dataset: Any) -> Iterator[str]:
    """The instances that frames of a segmentation were derived from."""
    for frame in dataset.get("PerFrameFunctionalGroupsSequence") or ():
        for derivation in frame.get("DerivationImageSequence") or ():
            for source in derivation.get("SourceImageSequence") or ():
                yield text(source, "ReferencedSOPInstanceUID")
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    for derivation in (shared.get("DerivationImageSequence") or ()) if shared is not None else ():
        for source in derivation.get("SourceImageSequence") or ():
            yield text(source, "ReferencedSOPInstanceUID")
