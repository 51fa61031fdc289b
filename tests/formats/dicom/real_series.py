"""What must be read of the series in pydicom's wheel: every one of more than one slice, and what is odd about it.

Worked out by hand from the headers (pydicom prints them: ImagePositionPatient, ImageOrientationPatient, PixelSpacing, InstanceNumber),
turning LPS into RAS. :func:`stacked` does the same in five lines of numpy; ``test_make.py`` holds the two against each other and against
dcm2niix. Files of ``dicomdirtests`` were made smaller for pydicom: 16 x 16 pixels are left, and PixelSpacing is still that of 512 x 512, so
their voxels are small and lie at one corner of the head; most slices of most series were taken away.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from tests.formats.dicom.volumes import LPS, Array

__all__ = ["ROOT", "SERIES", "RealSeries", "stacked"]

BASE_36 = string.digits + string.ascii_uppercase
ROOT = Path(pydicom.__file__).parent / "data" / "test_files"


@dataclass(frozen=True)
class RealSeries:
    """One SeriesInstanceUID.

    Attributes:
        files: Below ``ROOT``, in the order of slices along the normal, where they are a stack.
        kind: "regular"; "gap": parallel slices of uneven distance; "orientations": frames that are not parallel; "multiframe";
            "copies": files of one instance; "no geometry".
        shape: Of the stack, (X, Y, Z); None where there is none.
        affine: (3, 4), voxel index to RAS mm, 6 decimals; None where there is no regular stack.
        along: mm along the normal of each slice, of stacks.
        note: What a reader has to look out for, and what dcm2niix v1.0.20260724 makes of it.
    """

    name: str
    files: tuple[str, ...]
    kind: str
    shape: tuple[int, int, int] | None = None
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    along: tuple[float, ...] = ()
    note: str = ""

    @property
    def paths(self) -> list[Path]:
        return [ROOT / file for file in self.files]


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"dicomdirtests/{folder}/{name}" for name in names)


SERIES = [
    RealSeries(
        "CT5N",
        _in("98892001/CT5N", "3353", "3023", "2693", "2392", "2062"),
        "regular",
        (16, 16, 5),
        ((-0.488281, 0, 0, 72.199997), (0, -0.488281, 0, 143.0), (0, 0, 2.5, -1.2375)),
        (-1.2375, 1.2625, 3.7625, 6.2625, 8.7625),
        "The only regular one. Feet first: names and instance numbers 6..10 run against the normal. AcquisitionNumber and AcquisitionTime "
        "differ (6, 7, 8: 1; 9, 10: 2) though it is one stack. dcm2niix: the same.",
    ),
    RealSeries(
        "CT2",
        _in("77654033/CT2", "17106", "17136", "17166", "17196"),
        "gap",
        (16, 16, 4),
        None,
        (-99.480003, 103.019997, 104.269997, 105.519997),
        "162 steps of 1.25 mm between the first slice and the second (instance numbers 18, 180, 181, 182): 161 slices are missing. Three "
        "AcquisitionNumbers, 4, 44, 45, 45, in one stack. dcm2niix warns, and writes 4 slices 202.5 mm apart: its affine is wrong for all "
        "but the first two; its _Eq_1 resamples, to 8 slices 29.29 mm apart.",
    ),
    RealSeries(
        "CT2 without its first slice",
        _in("77654033/CT2", "17136", "17166", "17196"),
        "regular",
        (16, 16, 3),
        ((-0.488281, 0, 0, 125.0), (0, -0.488281, 0, 128.100006), (0, 0, 1.25, 103.019997)),
        (103.019997, 104.269997, 105.519997),
        "The regular part of CT2. dcm2niix: the same.",
    ),
    RealSeries(
        "CT2N",
        _in("98892001/CT2N", "6293", "6924"),
        "orientations",
        note="Two scouts at right angles, (0, -1, 0, 0, 0, -1) and (1, 0, 0, 0, 0, -1): ImageType LOCALIZER, SliceThickness 650 mm, both "
        "0 mm along their own normals. PixelSpacing differs between rows (0.545455) and columns (0.596847). dcm2niix stacks them all "
        "the same, (16, 16, 2), and takes the turn for a gantry tilt of 45 degrees.",
    ),
    RealSeries(
        "MR2 of 4950",
        _in("98892003/MR2", "4950", "5011", "4981"),
        "orientations",
        note="Pilot: coronal, sagittal, axial, instance numbers 1, 2, 3. Its folder holds two more series. dcm2niix: 3 images of one "
        "slice.",
    ),
    RealSeries(
        "MR2 of 6273",
        _in("98892003/MR2", "6935", "6605", "6273"),
        "orientations",
        note="As MR2 of 4950, with another study, frame of reference and positions.",
    ),
    RealSeries(
        "MR700",
        _in("98892003/MR700", "4558", "4528", "4588", "4467", "4618", "4678", "4648"),
        "orientations",
        note="Angiographic projections, ImageType DERIVED SECONDARY PROJECTION IMAGE: the rows turn about the z axis, 16.4 degrees from "
        "one to the next, the columns stay (in the order of instance numbers 1..7). Direction cosines have 6 digits: row x column is of "
        "unit length to 1e-5 only. Numbers are written as 3.906250e-01. dcm2niix: 7 images of one slice.",
    ),
    RealSeries(
        "rtdose",
        ("rtdose.dcm",),
        "multiframe",
        (10, 10, 15),
        ((-10, 0, 0, -189.43125), (0, -10, 0, -199.43125), (0, 0, 5, -761.87)),
        tuple(-761.87 + 5.0 * k for k in range(15)),
        "RT Dose, 32 bits unsigned, implicit VR: slices at GridFrameOffsetVector, relative to ImagePositionPatient; values are times "
        "DoseGridScaling. No SliceThickness: dcm2niix puts the slices 1 mm apart. rtdose_1frame, _expb, _rle and the rest have the same "
        "SOPInstanceUID, those of one frame too, with the same 15 offsets; badVR.dcm is another, NumberOfFrames '1A'.",
    ),
    RealSeries(
        "MR_small",
        tuple(f"MR_small{end}.dcm" for end in ("", "_RLE", "_bigendian", "_expb", "_implicit"))
        + tuple(f"MR_small{end}.dcm" for end in ("_jp2klossless", "_jpeg_ls_lossless", "_padded")),
        "copies",
        (64, 64, 1),
        ((-0.3125, 0, 0, 83.9063), (0, -0.3125, 0, 91.2), (0, 0, 0.8, 6.6406)),
        (6.6406,),
        "Eight files of one instance and one slice, in six transfer syntaxes, with the same pixels; MR_truncated.dcm is the same again "
        "without its last 62 bytes. The step is SliceThickness, there is no other slice to tell it.",
    ),
    RealSeries(
        "TINY_ALPHA",
        _in("TINY_ALPHA/PT000000/ST000000/SE000000", *(f"IM0000{k // 36}{BASE_36[k % 36]}" for k in range(50))),
        "no geometry",
        note="50 instances of CT Image Storage, named in base 36, with nothing in them but UIDs: no Rows, no pixels, no position. "
        "dcm2niix finds no image.",
    ),
]
"""Beside these ``dicomdirtests`` holds series of one image: 98892003/MR1 (three series in one folder) and MR2/15970, sagittal, and
77654033/CR1..3, radiographs without position or orientation. Files that share a SeriesInstanceUID without being slices of anything: the
secondary captures (SC_*, JPEG*), the ultrasound images, liver_*.dcm (segmentations of 1 bit) and charset_files/chr*."""


def stacked(paths: list[Path]) -> tuple[tuple[int, int, int], Array, Array]:
    """Shape, affine (of the first and the last slice) and mm along the normal of each, of single-frame files in the order of slices."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    row, column = np.array(headers[0].ImageOrientationPatient, float).reshape(2, 3)
    places = np.array([header.ImagePositionPatient for header in headers], float)
    down, right = (float(value) for value in headers[0].PixelSpacing)
    normal = np.cross(row, column)
    steps = len(paths) - 1
    step = (places[-1] - places[0]) / steps if steps else normal * float(headers[0].get("SliceThickness") or 1)
    lps = np.eye(4)
    lps[:3] = np.stack([row * right, column * down, step, places[0]], axis=1)
    return (headers[0].Columns, headers[0].Rows, len(paths)), LPS @ lps, places @ normal
