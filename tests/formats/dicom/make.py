"""DICOM with known answers, for the tests of the reader: everything that writes it, under one name.

The known answer is the array and the affine that a right reader gives back: array (X, Y, Z), axis 0 along the columns of a frame, axis 1
along its rows, axis 2 along the normal; affine (4, 4), voxel index to RAS mm.
"""

from __future__ import annotations

from tests.formats.dicom.encode import CONVERTED, SYNTAX, SYNTAXES, put_pixels, save, uid
from tests.formats.dicom.enhanced import write_enhanced
from tests.formats.dicom.identity import plant_identity, plant_uids
from tests.formats.dicom.mosaic import csa_header, write_mosaic
from tests.formats.dicom.objects import (
    write_bomb,
    write_capture,
    write_dicomdir,
    write_garbage,
    write_localizer,
    write_report,
    write_truncated,
)
from tests.formats.dicom.series import PATIENT, decimals, write_series
from tests.formats.dicom.volumes import fit, real_volume, rescaled, rotation, tilt

__all__ = [
    "CONVERTED",
    "PATIENT",
    "SYNTAX",
    "SYNTAXES",
    "csa_header",
    "decimals",
    "fit",
    "plant_identity",
    "plant_uids",
    "put_pixels",
    "real_volume",
    "rescaled",
    "rotation",
    "save",
    "tilt",
    "uid",
    "write_bomb",
    "write_capture",
    "write_dicomdir",
    "write_enhanced",
    "write_garbage",
    "write_localizer",
    "write_mosaic",
    "write_report",
    "write_series",
    "write_truncated",
]
