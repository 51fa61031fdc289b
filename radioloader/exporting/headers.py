"""What a stored NIfTI header says of the file that will have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError
from radioloader.formats.nifti import nibabel_header
from radioloader.geometry import GRID_TOLERANCE_MM, grid_distance

__all__ = ["FileGrid", "read_grid", "repetition_time"]

_SECONDS = {"msec": 1e-3, "usec": 1e-6}


@dataclass(frozen=True, slots=True)
class FileGrid:
    """What the file of a volume will hold.

    Attributes:
        shape: (X, Y, Z) or (X, Y, Z, T) in voxels.
        affine: (4, 4) voxel index to RAS mm.
        dtype: Of the voxels in the file.
        scaling: Slope and intercept.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    dtype: np.dtype[Any]
    scaling: tuple[float, float]

    def problem(self, other: FileGrid) -> str | None:
        """Why another volume's voxels are not on this grid; None when they are."""
        if self.shape[:3] != other.shape[:3]:
            return f"it has the shape {_size(other.shape)} and not {_size(self.shape)}"
        apart = grid_distance(self.affine, other.affine, self.shape)
        return f"its voxels lie up to {apart:.3g} mm off" if apart > GRID_TOLERANCE_MM else None


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[:3]))


def read_grid(block: bytes, times: int, where: str) -> FileGrid:
    """What the file will hold.

    Args:
        block: The header.
        times: Number of time points; 0 for 3D.
        where: The volume, for messages.

    Raises:
        ConfigError: There is no header.
    """
    if not block:
        raise ConfigError(f"{where}: the store does not know the file that it comes from")
    header = nibabel_header(block)
    x, y, z = (int(n) for n in header.get_data_shape()[:3])
    slope, intercept = header.get_slope_inter()
    return FileGrid(
        (x, y, z, times) if times else (x, y, z),
        np.asarray(header.get_best_affine(), np.float64),
        header.get_data_dtype(),
        (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
    )


def repetition_time(block: bytes) -> float | None:
    """Seconds between the volumes of a series, from ``pixdim[4]``; None where the header has none. Without a unit they are seconds."""
    header = nibabel_header(block)
    step = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if not np.isfinite(step) or step <= 0 or unit not in ("sec", "msec", "usec", "unknown"):
        return None
    # pixdim is float32, in which 0.72 is 0.7200000286
    return float(np.format_float_positional(np.float32(step))) * _SECONDS.get(unit, 1.0)
