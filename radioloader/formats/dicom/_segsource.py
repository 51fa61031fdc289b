"""What a SEG that is written takes from the image it belongs to: patient and study, and references to its frames.

highdicom copies the first from a source dataset and finds the second by comparing positions; it wants complete, conformant datasets for
that, with all functional groups shared, one frame per place and no tilt. So it is given a plain template here, and the references are
written by us: the grid knows the frames of every slice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from radioloader.errors import ConfigError
from radioloader.formats.dicom._segheader import LPS, explained
from radioloader.formats.dicom.grid import ImageGrid

__all__ = ["add_references", "make_template"]

_CT = "1.2.840.10008.5.1.4.1.1.2"
# Groups of patient, study, trial, equipment and acquisition: highdicom picks from them what belongs to patient and study.
_GROUPS = (0x0008, 0x0010, 0x0012, 0x0018, 0x0020)
# Type 2 (PS3.3 C.7.1.1, C.7.2.1): may be empty, must be there.
_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def make_template(grid: ImageGrid, source: Sequence[str | os.PathLike[str]] | None) -> Any:
    """A single-frame dataset at the place of the grid's first slice, with patient and study of the source files where there are some.

    Args:
        grid: The image's grid.
        source: DICOM files of the image; None leaves patient and study empty but for the study's UID.

    Raises:
        ConfigError: A file is not of the image's series, or of another patient than the first.
        FormatError: A file cannot be read.
    """
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    template = Dataset() if source is None else _from_files(grid, source)
    for keyword in _EMPTY:
        if keyword not in template:
            setattr(template, keyword, None)
    _set_right(template)
    template.SpecificCharacterSet = "ISO_IR 192"
    template.SOPClassUID = _CT  # whose patient and study modules are those of all images
    template.SOPInstanceUID = grid.slices[0][0][0]
    template.StudyInstanceUID = grid.study or generate_uid()
    template.SeriesInstanceUID = grid.series or generate_uid()
    template.FrameOfReferenceUID = grid.frame_of_reference or generate_uid()
    template.Rows, template.Columns = grid.shape[1], grid.shape[0]
    # Only there because highdicom looks at it: the SEG gets its own places.
    template.ImagePositionPatient = [0.0, 0.0, 0.0]
    template.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    template.PixelSpacing, template.SliceThickness = [1e-3, 1e-3], 1e-3
    return template


def _from_files(grid: ImageGrid, source: Sequence[str | os.PathLike[str]]) -> Any:
    from pydicom import Dataset, dcmread

    if isinstance(source, str | os.PathLike) or not len(source):
        raise ConfigError(
            f"source={source!r} must be a sequence of the image's DICOM files, at least one; None writes no patient"
        )
    tags = [
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "PatientID",
        "SpecificCharacterSet",
    ]
    template: Any = None
    own = {uid for frames in grid.slices for uid, _ in frames}
    patient = ""
    for path in source:
        with explained(path):
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=None if template is None else tags)
            series = str(dataset.get("SeriesInstanceUID", ""))
            if str(dataset.get("SOPInstanceUID", "")) not in own and (not series or series != grid.series):
                raise ConfigError(
                    f"{path}: a file of series {series or 'unknown'}, but the mask lies on an image of series "
                    f"{grid.series or 'unknown'}; give the DICOM files of that image"
                )
            if template is None:
                template, patient = Dataset(), dataset.get("PatientID")
                for element in _elements(dataset):
                    template.add(element)
            elif dataset.get("PatientID") != patient:
                raise ConfigError(f"{path}: its PatientID is not that of {source[0]}; all files must be of one image")
    return template


def _elements(dataset: Any) -> Iterator[Any]:
    """What highdicom may take over, as text that does not depend on the file's character set."""
    from pydicom.datadict import keyword_for_tag

    for tag in list(dataset.keys()):
        lossy = str(keyword_for_tag(tag)).startswith("LossyImageCompression")
        if tag.is_private or not (tag.group in _GROUPS or lossy):
            continue
        try:
            element = dataset[tag]
            for item in element.value if element.VR == "SQ" else ():
                item.decode()
        except Exception:  # a value that is not of its kind, in something that is not needed
            continue
        yield element


def _set_right(template: Any) -> None:
    """Values that highdicom would stop at are left empty: they say nothing that is needed."""
    from pydicom.valuerep import DA, TM

    if template.PatientSex not in ("M", "F", "O"):
        template.PatientSex = None
    for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            kind(str(template[keyword].value or ""))
        except ValueError:
            template[keyword].value = None


def add_references(seg: Any, grid: ImageGrid) -> None:
    """Write which frames of the image each frame of ``seg`` shows (PS3.3 C.7.6.16.2.6), and the instances of all slices (C.12.1.1.16).

    Args:
        seg: highdicom's dataset; its frames lie on slices of ``grid``.
        grid: The image's grid.
    """
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    frames = [frame for slice_frames in grid.slices for frame in slice_frames]
    uids = list(dict.fromkeys(uid for uid, _ in frames))
    numbered = len(uids) < len(frames) or any(number for _, number in frames)

    def concept(code: Any) -> Any:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
        return item

    def reference(uid: str) -> Any:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = grid.sop_class, uid
        return item

    def derivation(slice_index: int) -> Any:
        sources = []
        for uid, number in grid.slices[slice_index]:
            item = reference(uid)
            if numbered:
                item.ReferencedFrameNumber = number + 1
            item.SpatialLocationsPreserved = "YES"
            item.PurposeOfReferenceCodeSequence = [concept(codes.cid7202.SourceImageForImageProcessingOperation)]
            sources.append(item)
        derived = Dataset()
        derived.DerivationCodeSequence = [concept(codes.cid7203.SegmentationImageDerivation)]
        derived.SourceImageSequence = sources
        return derived

    for item in seg.PerFrameFunctionalGroupsSequence:
        position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, np.float64) * LPS
        nearest = int(np.linalg.norm(grid.origins - position, axis=1).argmin())
        item.DerivationImageSequence = [derivation(nearest)]
    seg.SourceImageSequence = [reference(uid) for uid in uids]
    series = Dataset()
    series.SeriesInstanceUID = grid.series
    series.ReferencedInstanceSequence = [reference(uid) for uid in uids]
    seg.ReferencedSeriesSequence = [series]
