"""Voxels that lie in memory as a source of a volume."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.nifti import make_header
from radioloader.formats.orientation import turn, turn_grid
from radioloader.geometry import axcodes
from radioloader.ingestion.intake import Loaded, Place
from radioloader.ingestion.statistics import Statistics

__all__ = ["ArraySource", "from_array"]

_SLAB = 16


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array as a :class:`~radioloader.ingestion.intake.VolumeSource`.

    Attributes:
        voxels: (X, Y, Z) or (X, Y, Z, T).
        affine: (4, 4) float64, voxel index to RAS mm.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.voxels.dtype.str} {self.voxels.shape}".encode())
        digest.update(np.ascontiguousarray(self.affine, "<f8").data)
        digest.update(np.ascontiguousarray(self.voxels).data)
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """No path: what it holds is its name."""
        return f"array:{self._digest[:16]}"

    @property
    def where(self) -> str:
        return f"an array of shape {self.voxels.shape}"

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {}

    def place(self) -> Place:
        return Place(self.voxels.shape, self.affine)

    def hash(self) -> str:
        return self._digest

    def load(self, orientation: str | None) -> Loaded:
        return from_array(self.voxels, self.affine, orientation, source_hash=self.hash(), code=2)


def from_array(
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    orientation: str | None,
    *,
    source_hash: str,
    slope: float = 1.0,
    intercept: float = 0.0,
    notes: tuple[str, ...] = (),
    columns: Mapping[str, Any] | None = None,
    code: int = 1,
) -> Loaded:
    """Voxels with what is counted of them.

    Args:
        voxels: (X, Y, Z) or (X, Y, Z, T).
        affine: (4, 4) voxel index to RAS mm.
        orientation: Axis codes that they are turned to; None leaves them.
        source_hash: SHA-256 of where they come from.
        slope: Multiplied to them.
        intercept: Added after that.
        notes: What a user should know.
        columns: Further columns of the volume's row.
        code: sform_code of the NIfTI header for an export.
    """
    source_codes = axcodes(affine)
    codes = orientation or source_codes
    _, turned = turn_grid(voxels.shape, affine, source_codes, codes)
    digest = hashlib.sha256(f"{voxels.dtype.str} {voxels.shape} {slope!r} {intercept!r}".encode())
    digest.update(np.ascontiguousarray(affine, "<f8").tobytes())
    counted = Statistics(voxels.dtype, slope, intercept)
    for volume in [voxels] if voxels.ndim == 3 else np.moveaxis(voxels, 3, 0):
        for start in range(0, volume.shape[2], _SLAB):
            run = np.ravel(volume[:, :, start : start + _SLAB], order="F")
            digest.update(run.data)
            counted.add(run)
    return Loaded(
        voxels=np.ascontiguousarray(turn(voxels, source_codes, codes)),
        slope=slope,
        intercept=intercept,
        affine=turned,
        codes=codes,
        source_codes=source_codes,
        header=make_header(voxels.shape, voxels.dtype, affine, slope=slope, intercept=intercept, code=code),
        source_hash=source_hash,
        content_hash=digest.hexdigest(),
        statistics=counted.result(),
        notes=notes,
        columns=columns or {},
    )
