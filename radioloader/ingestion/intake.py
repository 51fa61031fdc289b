"""One volume on its way from a file into memory, in the order in which it is written.

What has to see all voxels in the file's order (the hash of the content, the statistics) sees them while a few planes are read, and each
plane goes straight to its place in a turned array: there is no second copy of the volume.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.nifti import NiftiHeader, read_voxels
from radioloader.formats.orientation import turn, turn_grid
from radioloader.geometry import axcodes
from radioloader.ingestion.statistics import Statistics

__all__ = ["Intake"]


class Intake:
    """Reads a NIfTI file.

    Args:
        path: The file.
        orientation: Axis codes to turn the voxels to; None keeps the file's.

    Attributes:
        header: Its header.
        source_codes: Axis codes of the file.
        codes: Axis codes of ``voxels``.
        voxels: (X, Y, Z) or (X, Y, Z, T), stored values in C order.
        affine: (4, 4) float64, index in ``voxels`` to RAS mm.
        source_hash: SHA-256 of the file.
        content_hash: Hash of what the file says, however it is compressed: dtype, shape, scaling, affine and voxels in the file's order.
        statistics: Of the values.

    Raises:
        FormatError: The file cannot be used.
    """

    def __init__(self, path: str, orientation: str | None) -> None:
        self._orientation = orientation
        self._digest = hashlib.sha256()
        self.header, _, self.source_hash = read_voxels(path, begin=self._begin, visit=self._visit)
        self.content_hash = self._digest.hexdigest()
        self.statistics = self._statistics.result()

    def _begin(self, header: NiftiHeader) -> npt.NDArray[Any]:
        self.source_codes = axcodes(header.affine)
        self.codes = self._orientation or self.source_codes
        shape, self.affine = turn_grid(header.shape, header.affine, self.source_codes, self.codes)
        self.voxels = np.empty(shape, header.dtype)
        self._statistics = Statistics(header.dtype, header.slope, header.intercept)
        self._digest.update(f"{header.dtype.str} {header.shape} {header.slope!r} {header.intercept!r}".encode())
        self._digest.update(np.ascontiguousarray(header.affine, "<f8").tobytes())
        return turn(self.voxels, self.codes, self.source_codes)

    def _visit(self, run: npt.NDArray[Any]) -> None:
        self._digest.update(run.data)
        self._statistics.add(run)
