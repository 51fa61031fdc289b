"""Volumes that are in no store yet: arrays, and files that were not ingested."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.container.voxels import Voxels
from radioloader.errors import ConfigError, ShapeError
from radioloader.formats.dicom.volumes import Policy
from radioloader.geometry import affine_problem, axcodes
from radioloader.ingestion.array import ArraySource
from radioloader.ingestion.dicom_volume import DicomSeries
from radioloader.ingestion.intake import Loaded, NiftiFile, VolumeSource
from radioloader.ingestion.naming import file_stem
from radioloader.ingestion.scan import scan_files
from radioloader.storage.schema import DTYPES
from radioloader.types import Box

__all__ = ["NewVolume", "from_dicom", "from_nifti", "from_numpy"]


class NewVolume(Voxels):
    """A volume on its way into a store, as :meth:`Volume.from_numpy` and its relatives make it.

    Attributes:
        source: Where its voxels come from.
        subject: Id of its subject; empty where nobody said.
        suffix: What tells it from other volumes of the subject in a collection; empty for the only one.
    """

    def __init__(self, source: VolumeSource, subject: str, suffix: str = "") -> None:
        self.source, self.subject, self.suffix = source, subject, suffix
        place = source.place()
        self._shape = place.shape
        self.affine: npt.NDArray[np.float64] = place.affine.copy()
        self.axcodes = axcodes(place.affine)

    @cached_property
    def _loaded(self) -> Loaded:
        return self.source.load(None)

    @property
    def _scaled(self) -> bool:
        return not isinstance(self.source, ArraySource) and (self._loaded.slope, self._loaded.intercept) != (1.0, 0.0)

    @property
    def _stored(self) -> npt.NDArray[Any]:
        return self.source.voxels if isinstance(self.source, ArraySource) else self._loaded.voxels

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64) if self._scaled else self._stored.dtype

    @property
    def tile(self) -> tuple[int, int, int]:
        return (1, self.shape[1], self.shape[2])

    @property
    def _source_axcodes(self) -> str:
        return self.axcodes

    def describe(self) -> str:
        return self.source.where

    def _bounds(self) -> tuple[float, float]:
        values = self.to_numpy()
        finite = values[np.isfinite(values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (np.nan, np.nan)

    def _read_box(self, box: Box, times: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        part = self._stored[box.slices()]
        part = part if times is None else part[..., list(times)]
        return part * self._loaded.slope + self._loaded.intercept if self._scaled else part.copy()

    def __setitem__(self, index: Any, value: Any) -> None:
        """Change voxels of an array, as numpy does it."""
        if not isinstance(self.source, ArraySource):
            raise TypeError(
                f"voxels of {self.describe()} cannot be changed; take Volume.from_numpy(volume.to_numpy(), ...)"
            )
        self.source.voxels[index] = value
        self.source = ArraySource(self.source.voxels, self.source.affine)  # its digest is that of what it holds now

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        mm = "x".join(f"{v:.3g}" for v in self.spacing)
        return f"NewVolume({self.subject!r}, {size}, {mm} mm, {self.axcodes}, {self.describe()})"


def from_numpy(
    array: npt.ArrayLike,
    *,
    affine: npt.ArrayLike | None,
    spacing: Sequence[float] | None,
    subject: str,
    suffix: str,
) -> NewVolume:
    """See :meth:`Volume.from_numpy`."""
    voxels = np.array(array.detach().cpu().numpy() if hasattr(array, "detach") else array)
    if voxels.ndim not in (3, 4) or 0 in voxels.shape:
        raise ShapeError(
            f"the array has shape {voxels.shape}; a volume is (X, Y, Z), or (X, Y, Z, T), of at least a voxel"
        )
    narrow = {"bool": "uint8", "float16": "float32"}
    voxels = voxels.astype(narrow.get(voxels.dtype.name, voxels.dtype.newbyteorder("=")), copy=False)
    if voxels.dtype.name not in DTYPES:
        raise ConfigError(f"the array has dtype {voxels.dtype}; volumes are of {', '.join(DTYPES)}")
    if affine is not None and spacing is not None:
        raise ConfigError("give affine or spacing, and not both")
    matrix = np.eye(4) if affine is None else np.array(affine, np.float64)
    if spacing is not None:
        if len(spacing) != 3 or not all(step > 0 for step in spacing):
            raise ConfigError(f"spacing={spacing!r} must be three distances in mm, above 0")
        matrix[:3, :3] = np.diag(np.asarray(spacing, np.float64))
    problem = affine_problem(matrix)
    if problem:
        raise ConfigError(f"{problem}; it maps voxel indices to RAS mm")
    return NewVolume(ArraySource(np.ascontiguousarray(voxels), matrix), subject, suffix)


def from_nifti(path: str | os.PathLike[str], *, subject: str | None, suffix: str) -> NewVolume:
    """See :meth:`Volume.from_nifti`."""
    source = NiftiFile.parse(os.path.abspath(path))
    return NewVolume(source, file_stem(source.path) if subject is None else subject, suffix)


def from_dicom(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    subject: str,
    suffix: str,
    policy: Policy,
) -> NewVolume:
    """See :meth:`Volume.from_dicom`."""
    roots = [path] if isinstance(path, str | os.PathLike) else list(path)
    scan = scan_files([os.fspath(root) for root in roots], policy.check())
    usable = [volume for volume in scan.volumes if not volume.problem]
    if len(usable) != 1:
        where = ", ".join(map(str, roots))
        problems = [f"{volume.describe()}: {volume.problem}" for volume in scan.volumes if volume.problem]
        found = "; ".join([volume.describe() for volume in usable] + problems) or "no image"
        raise ConfigError(f"{where} holds {len(usable)} volumes that can be used, expected one: {found}")
    return NewVolume(DicomSeries(usable[0], policy), subject, suffix)
