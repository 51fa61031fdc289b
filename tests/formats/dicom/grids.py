"""Grids of DICOM files, worked out from their headers with nothing of the code under test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom

from radioloader.formats.dicom.grid import ImageGrid

LPS = np.array([-1.0, -1.0, 1.0])


def grid_of_files(paths: Iterable[Path]) -> tuple[ImageGrid, list[Path]]:
    """Grid of a plain single-frame series, and its files in the order of their slices."""
    images = sorted(
        ((pydicom.dcmread(p, stop_before_pixels=True), p) for p in paths),
        key=lambda pair: float(
            np.cross(pair[0].ImageOrientationPatient[:3], pair[0].ImageOrientationPatient[3:])
            @ np.array(pair[0].ImagePositionPatient, float)
        ),
    )
    first = images[0][0]
    origins = np.array([np.array(image.ImagePositionPatient, float) * LPS for image, _ in images])
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.ImageOrientationPatient[:3], float) * LPS * float(first.PixelSpacing[1])
    affine[:3, 1] = np.array(first.ImageOrientationPatient[3:], float) * LPS * float(first.PixelSpacing[0])
    affine[:3, 2] = (origins[-1] - origins[0]) / (len(origins) - 1)
    affine[:3, 3] = origins[0]
    grid = ImageGrid(
        shape=(first.Columns, first.Rows, len(images)),
        affine=affine,
        origins=origins,
        frame_of_reference=first.FrameOfReferenceUID,
        study=first.StudyInstanceUID,
        series=first.SeriesInstanceUID,
        sop_class=first.SOPClassUID,
        slices=tuple(((str(image.SOPInstanceUID), 0),) for image, _ in images),
    )
    return grid, [path for _, path in images]
