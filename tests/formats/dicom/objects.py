"""Things that lie beside image series: other objects, and files that are broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from tests.formats.dicom.encode import put_pixels, save, uid
from tests.formats.dicom.series import patient_study, write_series
from tests.formats.dicom.volumes import real_volume, rotation

__all__ = [
    "write_bomb",
    "write_capture",
    "write_dicomdir",
    "write_garbage",
    "write_localizer",
    "write_report",
    "write_truncated",
]


def _object(kind: UID, modality: str, study: str, series: str, **values: Any) -> Dataset:
    ds = Dataset()
    patient_study(ds, None, study, series, None)
    ds.SOPClassUID, ds.SOPInstanceUID = kind, uid("object", kind, study, series)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = modality, 99, 1
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def write_capture(path: Path, *, colour: bool = True, study: str = "study", series: str = "capture") -> Path:
    """A secondary capture of 20 rows and 30 columns, RGB or grey, 8 bits; it has no geometry."""
    ds = _object(uids.SecondaryCaptureImageStorage, "OT", study, series, ConversionType="WSD")
    picture = np.random.default_rng(1).integers(0, 256, (1, 20, 30, 3), dtype=np.uint8)
    put_pixels(ds, picture if colour else picture[..., 0], bits_stored=8, signed=False)
    return save(ds, path)


def write_report(path: Path, *, study: str = "study", series: str = "report") -> Path:
    """A structured report: no pixels, and text that identifies."""
    ds = _object(uids.BasicTextSRStorage, "SR", study, series, CompletionFlag="COMPLETE", VerificationFlag="UNVERIFIED")
    ds.ContentDate, ds.ContentTime, ds.ValueType, ds.ContinuityOfContent = "20190314", "101500", "CONTAINER", "SEPARATE"
    text, name = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121071", "DCM", "Finding"
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", "Ottoline Quillfeather came back."
    text.ConceptNameCodeSequence = Items([name])
    ds.ContentSequence = Items([text])
    # What put_pixels does for the others.
    capture = Dataset()
    capture.SOPClassUID, capture.SOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    put_pixels(capture, np.zeros((1, 2, 2), np.uint8), bits_stored=8, signed=False)
    ds.file_meta = capture.file_meta
    return save(ds, path)


def write_localizer(
    folder: Path, *, who: str | None = None, study: str = "study", series: str = "localizer"
) -> list[Path]:
    """Three frames of one series, axial, sagittal and coronal: no volume can be made of them."""
    voxels, affine = real_volume((40, 36, 1))
    paths = []
    for number, turn in enumerate([(0, 0, 0), (0, 90, 0), (90, 0, 0)]):
        paths += write_series(
            folder,
            voxels,
            rotation(turn) @ affine,
            modality="MR",
            image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
            instance_numbers=[number + 1],
            description="LOCALIZER",
            patient=None if who is None else {"PatientID": who},
            study=study,
            series=series,
        )
    return paths


def write_dicomdir(folder: Path, files: Sequence[Path]) -> Path:
    """A DICOMDIR in ``folder`` and copies of the files beside it, in folders and under names that it chooses. Returns its path."""
    made = FileSet()
    for file in files:
        made.add(file)
    before = made._stage["t"]
    made.write(folder)
    for staged in (before, made._stage["t"]):
        staged.cleanup()  # pydicom leaves it to the garbage collector, which warns
    return folder / "DICOMDIR"


def write_garbage(path: Path) -> Path:
    """A preamble, "DICM", and noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(2).bytes(5000))
    return path


def write_truncated(path: Path, source: Path, part: float = 0.7) -> Path:
    """The first ``part`` of a file; 0.7 of a slice ends within its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def write_bomb(
    path: Path,
    syntax: UID = uids.ExplicitVRLittleEndian,
    *,
    size: int = 65535,
    frames: int = 10000,
    study: str = "study",
    series: str = "bomb",
) -> Path:
    """A small file that says it holds ``frames`` frames of ``size`` x ``size`` (by default 86 TB); its pixels are those of one 32 x 32."""
    ds = _object(uids.EnhancedCTImageStorage, "CT", study, series, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    put_pixels(ds, np.arange(1024, dtype=np.int16).reshape(1, 32, 32), syntax)
    group = Dataset()
    for keyword, values in {
        "PixelMeasuresSequence": {"PixelSpacing": [1, 1], "SliceThickness": 1},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 0]},
    }.items():
        inner = Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        setattr(group, keyword, Items([inner]))
    ds.SharedFunctionalGroupsSequence = Items([group])
    ds.PerFrameFunctionalGroupsSequence = Items([Dataset()])
    ds.Rows = ds.Columns = size
    ds.NumberOfFrames = frames
    return save(ds, path)
