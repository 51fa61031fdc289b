"""Sources of volumes, and one volume on its way from its source into memory, in the order in which it is written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError
from radioloader.formats.nifti import NiftiHeader, read_header, read_voxels
from radioloader.formats.nifti_names import source_files
from radioloader.formats.orientation import turn, turn_grid
from radioloader.geometry import axcodes
from radioloader.ingestion.statistics import Statistics

__all__ = ["Loaded", "NiftiFile", "Place", "VolumeSource", "split_component"]


def split_component(text: str) -> tuple[str, int | None]:
    """The path and the number of the 3D volume (from 0) in ``scan.nii.gz#2``; the whole text and None where that is the name of a file."""
    match = re.fullmatch(r"(.+)#(\d{1,6})", text, re.S)
    if match is None or os.path.lexists(text):
        return text, None
    return match.group(1), int(match.group(2))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the voxels of a source lie, known before they are read.

    Attributes:
        shape: (X, Y, Z) or (X, Y, Z, T) in voxels, in the source's orientation.
        affine: (4, 4) float64, voxel index to RAS mm.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A volume in memory.

    Attributes:
        voxels: (X, Y, Z) or (X, Y, Z, T), stored values in C order.
        slope: Multiplied to them.
        intercept: Added after that.
        affine: (4, 4) float64, index in ``voxels`` to RAS mm.
        codes: Axis codes of ``voxels``.
        source_codes: Axis codes of the source.
        header: NIfTI header block of an export in the source's orientation.
        source_hash: SHA-256 of the source.
        content_hash: Hash of what the source says, however it is encoded: dtype, shape, scaling, affine and voxels in the source's order.
        statistics: Of the values.
        notes: What a user should know.
        columns: Further columns of its row, by name.
    """

    voxels: npt.NDArray[Any]
    slope: float
    intercept: float
    affine: npt.NDArray[np.float64]
    codes: str
    source_codes: str
    header: bytes
    source_hash: str
    content_hash: str
    statistics: Mapping[str, float]
    notes: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


class VolumeSource(Protocol):
    """Where a volume comes from."""

    @property
    def name(self) -> str:
        """What the catalog says of it: the same text for the same source."""
        ...

    @property
    def where(self) -> str:
        """Its files, for messages."""
        ...

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What decides the stored voxels besides the files."""
        ...

    def place(self) -> Place:
        """Where its voxels lie.

        Raises:
            FormatError: It cannot be used.
        """
        ...

    def hash(self) -> str:
        """SHA-256 of the source, as :attr:`Loaded.source_hash`.

        Raises:
            FormatError: It cannot be read.
        """
        ...

    def load(self, orientation: str | None) -> Loaded:
        """Read it whole, turned to ``orientation``.

        Raises:
            FormatError: It cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class NiftiFile:
    """A NIfTI file, or either one of a pair, or one of the 3D volumes of a 4D file.

    Attributes:
        path: The file.
        component: Number of the 3D volume, from 0; None takes the file as it is.
    """

    path: str
    component: int | None = None

    @classmethod
    def parse(cls, text: str) -> NiftiFile:
        """A file from its path; ``scan.nii.gz#2`` is the third volume of a 4D file, where no file is called so."""
        path, component = split_component(text)
        return cls(path, component)

    @property
    def name(self) -> str:
        return self.path if self.component is None else f"{self.path}#{self.component}"

    @property
    def where(self) -> str:
        return self.name

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {} if self.component is None else {"component": self.component}

    def place(self) -> Place:
        header = read_header(self.path, component=self.component)
        return Place(header.shape, header.affine)

    def hash(self) -> str:
        digest = hashlib.sha256()
        try:
            for file in dict.fromkeys(source_files(self.path)):
                with open(file, "rb") as stream:
                    while block := stream.read(2**20):
                        digest.update(block)
        except OSError as error:
            raise FormatError(f"{Path(self.path)}: could not be read: {error.strerror or error}") from error
        return digest.hexdigest()

    def load(self, orientation: str | None) -> Loaded:
        intake = _NiftiIntake(self.path, orientation, self.component)
        header = intake.header
        return Loaded(
            voxels=intake.voxels,
            slope=header.slope,
            intercept=header.intercept,
            affine=intake.affine,
            codes=intake.codes,
            source_codes=intake.source_codes,
            header=header.block,
            source_hash=intake.source_hash,
            content_hash=intake.digest.hexdigest(),
            statistics=intake.statistics.result(),
            notes=header.notes,
        )


class _NiftiIntake:
    """Reads a NIfTI file in one pass.

    What has to see all voxels in the file's order (the hash of the content, the statistics) sees them while a few planes are read, and each
    plane goes straight to its place in a turned array: there is no second copy of the volume.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    codes: str
    source_codes: str
    statistics: Statistics

    def __init__(self, path: str, orientation: str | None, component: int | None) -> None:
        self._orientation = orientation
        self.digest = hashlib.sha256()
        self.header, _, self.source_hash = read_voxels(path, component=component, begin=self._begin, visit=self._visit)

    def _begin(self, header: NiftiHeader) -> npt.NDArray[Any]:
        self.source_codes = axcodes(header.affine)
        self.codes = self._orientation or self.source_codes
        shape, self.affine = turn_grid(header.shape, header.affine, self.source_codes, self.codes)
        self.voxels = np.empty(shape, header.dtype)
        self.statistics = Statistics(header.dtype, header.slope, header.intercept)
        self.digest.update(f"{header.dtype.str} {header.shape} {header.slope!r} {header.intercept!r}".encode())
        self.digest.update(np.ascontiguousarray(header.affine, "<f8").tobytes())
        return turn(self.voxels, self.codes, self.source_codes)

    def _visit(self, run: npt.NDArray[Any]) -> None:
        self.digest.update(run.data)
        self.statistics.add(run)
