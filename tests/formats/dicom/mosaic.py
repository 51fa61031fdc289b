"""Volumes written as Siemens mosaics: all slices of a volume as tiles of one frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.uid import UID

from tests.formats.dicom.encode import put_pixels, save, uid
from tests.formats.dicom.series import decimals, patient_study
from tests.formats.dicom.volumes import Array, plane_of

__all__ = ["csa_header", "write_mosaic"]


def write_mosaic(
    path: Path,
    voxels: Array,
    affine: Array,
    *,
    syntax: UID = uids.ExplicitVRLittleEndian,
    bits_stored: int = 16,
    signed: bool = False,
    against_normal: bool = False,
    count: bool = True,
    csa: bool = True,
    number: int = 1,
    patient: Mapping[str, Any] | None = None,
    study: str = "study",
    series: str = "mosaic",
    frame_of_reference: str | None = "frame",
    extra: Callable[[Dataset], None] | None = None,
) -> Path:
    """Writes one volume, stored values (X, Y, Z), as one mosaic; arguments that :func:`write_series` has as well mean the same.

    The tiles of Z slices stand in ceil(sqrt(Z)) columns and as many rows, the unused ones are 0. ImagePositionPatient is what Siemens
    writes: the corner of a frame as large as the mosaic whose middle is the middle of the first slice.

    Args:
        against_normal: The tiles run from the last slice to the first, and SliceNormalVector against row x column.
        count: Whether the private NumberOfImagesInMosaic (0019,100A) is there; it is in the CSA header as well.
        csa: Whether the CSA header (0029,1010) is there.
        number: InstanceNumber and AcquisitionNumber: of the volume in a series over time, 2 s each.
    """
    if voxels.ndim != 3:
        raise ValueError("a mosaic holds one volume: call once for each time point")
    plane = plane_of(affine)
    columns, rows, depth = voxels.shape
    side = int(np.ceil(np.sqrt(depth)))
    slices = list(range(depth))[:: -1 if against_normal else 1]
    mosaic = np.zeros((side * rows, side * columns), voxels.dtype)
    for tile, k in enumerate(slices):
        down, right = divmod(tile, side)
        mosaic[down * rows : (down + 1) * rows, right * columns : (right + 1) * columns] = voxels[:, :, k].T
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    spaces = side - 1
    corner = (
        plane.position(slices[0])
        - row * plane.spacing[1] * columns * spaces / 2
        - column * plane.spacing[0] * rows * spaces / 2
    )

    ds = Dataset()
    patient_study(ds, patient, study, series, frame_of_reference)
    ds.SOPClassUID = uids.MRImageStorage
    ds.SOPInstanceUID = uid("mosaic", study, series, number, affine.tobytes(), voxels.tobytes())
    ds.Modality, ds.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.Manufacturer, ds.SoftwareVersions, ds.SpecificCharacterSet = "SIEMENS", "syngo MR B17", "ISO_IR 192"
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 1, number, number
    ds.AcquisitionTime = f"1012{2 * number:02d}.000000"
    ds.MRAcquisitionType, ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "2D", "EP", "SK", ""
    ds.RepetitionTime, ds.EchoTime = "2000", "30"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = decimals(corner), decimals(plane.orientation)
    ds.PixelSpacing = decimals(plane.spacing)
    ds.SliceThickness = ds.SpacingBetweenSlices = decimals([plane.gap])[0]
    if count:
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", depth)
    if csa:
        block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x08, "CS", "IMAGE NUM 4")
        normal = plane.normal * (-1 if against_normal else 1)
        header = {
            "EchoLinePosition": ("IS", []),
            "AcquisitionMatrixText": ("SH", [f"{rows}p*{columns}"]),
            "NumberOfImagesInMosaic": ("US", [str(depth)]),
            "SliceNormalVector": ("FD", [f"{value:.8f}" for value in normal]),
            "PhaseEncodingDirectionPositive": ("IS", ["1"]),
        }
        block.add_new(0x10, "OB", csa_header(header))
    put_pixels(ds, mosaic[None], syntax, bits_stored=bits_stored, signed=signed)
    if extra is not None:
        extra(ds)
    return save(ds, path)


def csa_header(fields: Mapping[str, tuple[str, Sequence[str]]]) -> bytes:
    """Siemens' own list of fields, in the second of its two formats ("SV10"): name -> (value representation, values as text)."""
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, (kind, values) in fields.items():
        # Siemens writes 6 values at least, the unused ones empty.
        items = max(6, len(values)) if values else 0
        out += struct.pack("<64si4siii", name.encode(), len(values), kind.encode(), 0, items, 77)
        for position in range(items):
            text = values[position].encode() + b"\0" if position < len(values) else b""
            out += struct.pack("<iiii", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return out + b"\0" * (len(out) % 2)
