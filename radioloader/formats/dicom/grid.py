"""The voxel grid of a volume made of DICOM frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FrameId", "ImageGrid"]

FrameId = tuple[str, int]
"""SOPInstanceUID and number of the frame in that instance, from 0."""


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """Where the voxels of an image series lie, and which frames they come from.

    Axis 0 runs along the columns of a frame (its index grows along the row direction cosines), axis 1 along its rows, axis 2 from slice
    to slice along the normal (row x column direction). Every coordinate is in RAS mm (DICOM's own LPS with the first two turned).

    Attributes:
        shape: (X, Y, Z): columns, rows, slices.
        affine: (4, 4) float64, voxel index to RAS mm; sheared where the gantry was tilted.
        origins: (Z, 3) float64, RAS mm, centre of voxel (0, 0) of each slice. Of a regular stack they are the affine's; of an irregular one
            that is kept as it is, they are the true ones.
        frame_of_reference: FrameOfReferenceUID; empty when the files have none.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        sop_class: SOPClassUID of the instances.
        slices: The frames of each slice; more than one where a slice has several (time points).
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    origins: npt.NDArray[np.float64]
    frame_of_reference: str
    study: str
    series: str
    sop_class: str
    slices: tuple[tuple[FrameId, ...], ...]
