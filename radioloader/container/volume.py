"""One stored volume."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from radioloader.config import SliceOrientation
from radioloader.container.new_volume import NewVolume, from_dicom, from_nifti, from_numpy
from radioloader.container.resample import resample
from radioloader.container.voxels import Voxels
from radioloader.errors import ConfigError, ShapeError
from radioloader.formats.dicom.geometry import Verdict
from radioloader.formats.dicom.origin import DicomOrigin
from radioloader.formats.dicom.volumes import Policy
from radioloader.formats.nifti import grid_of, make_header, write_nifti
from radioloader.formats.orientation import turn, turn_grid
from radioloader.geometry import grid_distance
from radioloader.storage.reader import VolumeReader
from radioloader.storage.snapshot import Snapshot
from radioloader.types import Box, VolumeRef

if TYPE_CHECKING:
    from radioloader.container.dicom_seg import Segments

__all__ = ["Volume"]

_SAME = 1e-2
"""Of a voxel: affines of files are float32, and turning rounds."""


class Volume(Voxels):
    """A volume in a store. Its geometry is known from the catalog; voxels are read when they are asked for.

    Index it like a numpy array: ``volume[100:200, :, :]`` reads those voxels and no others.

    Attributes:
        ref: Locator of the volume.
        affine: (4, 4) float64, voxel index to RAS mm.
        axcodes: Anatomical direction in which each axis grows, such as ``"RAS"``.
    """

    def __init__(self, snapshot: Snapshot, collection: str, place: int, reader: VolumeReader) -> None:
        self._snapshot, self._collection, self._place, self._reader = snapshot, collection, place, reader
        index = snapshot.index(collection)
        self.ref: VolumeRef = index.ref(place)
        self.affine: npt.NDArray[np.float64] = index.affines[place].copy()
        self.axcodes: str = index.axcodes(place)

    @staticmethod
    def from_numpy(
        array: npt.ArrayLike,
        *,
        affine: npt.ArrayLike | None = None,
        spacing: Sequence[float] | None = None,
        subject: str = "",
        suffix: str = "",
    ) -> NewVolume:
        """A volume of an array (or a tensor), to be put into a store by :meth:`VolumeCollection.from_volumes` or
        :meth:`RadiObject.append`.

        Args:
            array: (X, Y, Z) or (X, Y, Z, T), which is copied; bool becomes uint8, float16 float32.
            affine: (4, 4) voxel index to RAS mm; None: 1 mm, or ``spacing``, along R, A and S, from 0.
            spacing: Distance of voxels along x, y and z, in mm, instead of an affine.
            subject: Id of its subject.
            suffix: What tells it from other volumes of the subject in a collection.

        Raises:
            ShapeError, ConfigError: An argument cannot be used.
        """
        return from_numpy(array, affine=affine, spacing=spacing, subject=subject, suffix=suffix)

    @staticmethod
    def create(
        shape: Sequence[int],
        dtype: npt.DTypeLike = np.float32,
        *,
        fill: float = 0,
        affine: npt.ArrayLike | None = None,
        spacing: Sequence[float] | None = None,
        subject: str = "",
        suffix: str = "",
    ) -> NewVolume:
        """A volume of one value, to be filled (``volume[10:20] = 1``) and put into a store; see :meth:`from_numpy`."""
        return from_numpy(
            np.full(tuple(shape), fill, dtype), affine=affine, spacing=spacing, subject=subject, suffix=suffix
        )

    @staticmethod
    def from_nifti(path: str | os.PathLike[str], *, subject: str | None = None, suffix: str = "") -> NewVolume:
        """A volume of a NIfTI file, of which the header is read now, and the voxels when they are wanted.

        Args:
            path: The file; ``scan.nii.gz#2`` is the third volume of a 4D file.
            subject: Id of its subject; None takes the file's name.
            suffix: What tells it from other volumes of the subject in a collection.

        Raises:
            FormatError: It cannot be used.
        """
        return from_nifti(path, subject=subject, suffix=suffix)

    @staticmethod
    def from_dicom(
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        subject: str = "",
        suffix: str = "",
        on_tilt: str = "keep",
        on_irregular: str = "error",
        slice_tolerance_mm: float = 0.1,
    ) -> NewVolume:
        """The volume of the one DICOM series in some files or folders, of which headers are read now, and voxels when they are wanted.

        Args:
            path: Files, or folders of them.
            subject: Id of its subject; nothing in the files is taken for it.
            suffix: What tells it from other volumes of the subject in a collection.
            on_tilt: As for :func:`radioloader.ingest`, as are the others.
            on_irregular: Likewise.
            slice_tolerance_mm: Likewise.

        Raises:
            ConfigError: There is not just one volume that can be used.
        """
        policy = Policy(on_tilt, on_irregular, slice_tolerance_mm)
        return from_dicom(path, subject=subject, suffix=suffix, policy=policy)

    @property
    def shape(self) -> tuple[int, ...]:
        """(X, Y, Z) or (X, Y, Z, T) in voxels."""
        return self.ref.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of :meth:`to_numpy`: the stored one, or float64 when the source scales its values."""
        return self.ref.value_dtype

    @property
    def obs_id(self) -> str:
        """Id of the volume in its collection."""
        return self.ref.obs_id

    @property
    def obs_subject_id(self) -> str:
        """Id of the subject."""
        return self.ref.obs_subject_id

    @property
    def uri(self) -> str:
        """Where the voxel array lies."""
        return self.ref.uri

    @property
    def geometry(self) -> Verdict | None:
        """What is known about how the slices of a DICOM volume lie; None of one that comes from elsewhere."""
        text = self._snapshot.optional_detail(self._collection, "geometry")[self._place]
        return None if text is None else Verdict.from_json(text)

    @property
    def dicom(self) -> DicomOrigin | None:
        """Which DICOM instances a volume comes from; None of one that comes from elsewhere."""
        data = self._snapshot.optional_detail(self._collection, "dicom")[self._place]
        return None if data is None else DicomOrigin.unpack(data)

    @property
    def tile_orientation(self) -> SliceOrientation:
        """Which reads the tiles are shaped for."""
        return SliceOrientation(json.loads(self._detail("recipe"))["tile"]["orientation"])

    @property
    def tile(self) -> tuple[int, int, int]:
        """Extents (x, y, z) of the tiles, in voxels."""
        x, y, z = (int(n) for n in self._snapshot.tiles(self._collection)[self._place])
        return (x, y, z)

    def describe(self) -> str:
        return self.ref.describe()

    def _bounds(self) -> tuple[float, float]:
        known = self.statistics
        return known["min"], known["max"]

    def _read_box(self, box: Box, times: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
        values = self._reader.read(self.ref if times is None else dataclasses.replace(self.ref, times=times), box)
        return np.moveaxis(values, 0, 3) if self.ndim == 4 else values

    @property
    def statistics(self) -> dict[str, float]:
        """What was counted when the volume came in, without reading voxels: ``min``, ``max``, ``mean`` and ``std`` of the finite values,
        how many of them are not 0 (``nonzero``), and how many values are NaN or infinite (``nonfinite``)."""
        columns = ["stat_min", "stat_max", "stat_mean", "stat_std", "nonfinite", "nonzero"]
        values = self._snapshot.details(self._collection, columns)
        return {name.removeprefix("stat_"): values[name][self._place].item() for name in columns}

    @property
    def _source_axcodes(self) -> str:
        return str(self._detail("source_axcodes"))

    def to_nifti(self, path: str | os.PathLike[str], *, grid: str = "source") -> None:
        """Write the volume as ``.nii`` or ``.nii.gz``, on the grid of the file that it comes from.

        What was ingested is written as it was: the source file's voxels, dtype, scaling and header geometry (its free text and extensions
        are not kept at ingest, they may name the patient). What was computed (predictions, prepared volumes) is brought to the grid of the
        file that it was computed from: turned where that suffices, and else resampled, label collections by the nearest voxel, others
        linearly; 0 is where the volume does not reach.

        Args:
            path: The file.
            grid: ``"source"``; or ``"stored"``: as it lies in the store, which differs for what was turned or resampled.

        Raises:
            ReadError: The array is missing, damaged or out of reach.
            FormatError: ``path`` cannot be written.
            ConfigError: The file's grid is not known.
        """
        if grid not in ("source", "stored"):
            raise ConfigError(f"grid={grid!r} is not one of 'source', 'stored'")
        if grid == "source":
            voxels, block = self.source_voxels()
        else:
            voxels = self._stored_voxels()
            block = make_header(
                voxels.shape, voxels.dtype, self.affine, slope=self.ref.slope, intercept=self.ref.intercept
            )
        write_nifti(path, voxels, block=block)

    def source_voxels(self) -> tuple[npt.NDArray[Any], bytes]:
        """What :meth:`to_nifti` writes: voxels on the grid of the source, (X, Y, Z[, T]), not scaled; and the NIfTI header for them, whose
        dtype may be another one.

        Raises:
            ReadError: The array is missing, damaged or out of reach.
            ConfigError: The file's grid is not known.
        """
        nearest = self._snapshot.collection(self._collection).kind == "label"
        return self._on_source_grid(self._stored_voxels(), nearest=nearest), self._detail("header")

    def _stored_voxels(self) -> npt.NDArray[Any]:
        voxels = self._reader.read(dataclasses.replace(self.ref, slope=1.0, intercept=0.0))
        return np.moveaxis(voxels, 0, 3) if self.ndim == 4 else voxels

    def save_on_source_grid(self, array: npt.ArrayLike, path: str | os.PathLike[str]) -> None:
        """Write an array that was computed on this volume (a prediction) as NIfTI on the source file's own grid.

        Where that cannot be had by turning axes (the volume was resampled or cropped before it was stored), whole numbers are taken from
        the nearest voxel, and others are interpolated linearly.

        Args:
            array: (X, Y, Z) or (X, Y, Z, C) on the stored grid; bool is written as uint8, float16 as float32.
            path: ``.nii`` or ``.nii.gz``.

        Raises:
            ShapeError: ``array`` is not on this grid.
            ConfigError: The file's grid is not known.
        """
        values = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        if values.dtype.kind not in "biuf":
            raise ShapeError(f"the array has dtype {values.dtype}; NIfTI takes whole and real numbers")
        if values.shape[:3] != self.shape[:3] or values.ndim not in (3, 4):
            raise ShapeError(
                f"the array has shape {values.shape}, but {self.ref.describe()} has the grid {self.shape[:3]}"
            )
        narrow = {"bool": "uint8", "float16": "float32"}
        values = values.astype(narrow.get(values.dtype.name, values.dtype), copy=False)
        placed = self._on_source_grid(values, nearest=values.dtype.kind != "f")
        write_nifti(path, placed, block=self._detail("header"), dtype=values.dtype)

    def to_dicom_seg(
        self,
        path: str | os.PathLike[str],
        segments: Segments | None = None,
        *,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        segmentation_type: str = "BINARY",
    ) -> dict[int, int]:
        """Write a volume of classes as a DICOM segmentation (SEG, PS3.3 A.51) of the images that it was made on.

        Those are the DICOM instances that it was ingested from or with; for what was computed (predictions), those of its subject's image
        on the same grid.

        Args:
            path: The file.
            segments: Name of each class, by class or in their order from 1 (or :class:`~radioloader.formats.dicom.segwrite.SegmentSpec`);
                None names them by number.
            source: DICOM files of the images, or their folder: patient and study are copied from them. None leaves the patient empty; of a
                pseudonymised store they are needed, since it does not know the UIDs.
            segmentation_type: ``"BINARY"``, ``"LABELMAP"``, or ``"FRACTIONAL"`` for values from 0 to 1.

        Returns:
            Number of the segment by class.

        Raises:
            ConfigError: No DICOM image is known, or an argument does not fit.
            GridMismatchError: ``source`` does not hold the images.
            ReadError: The array is missing, damaged or out of reach.
        """
        return self.save_dicom_seg(self.to_numpy(), path, segments, source=source, segmentation_type=segmentation_type)

    def save_dicom_seg(
        self,
        array: npt.ArrayLike,
        path: str | os.PathLike[str],
        segments: Segments | None = None,
        *,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        segmentation_type: str = "BINARY",
    ) -> dict[int, int]:
        """Write an array that was computed on this volume as a DICOM segmentation of its images; see :meth:`to_dicom_seg`.

        Args:
            array: (X, Y, Z) classes on the stored grid; or (X, Y, Z, C) channels of 0 and 1, which may overlap.
            path: The file.
            segments: As for :meth:`to_dicom_seg`.
            source: As for :meth:`to_dicom_seg`.
            segmentation_type: As for :meth:`to_dicom_seg`.

        Raises:
            ShapeError: ``array`` is not on this grid.
        """
        from radioloader.container.dicom_seg import find_image, save_seg

        values = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        if values.shape[:3] != self.shape[:3] or values.ndim not in (3, 4):
            raise ShapeError(
                f"the array has shape {values.shape}, but {self.ref.describe()} has the grid {self.shape[:3]}"
            )
        if values.dtype.kind == "f" and segmentation_type != "FRACTIONAL" and (values == np.rint(values)).all():
            values = values.astype(np.int64)
        image = find_image(self._snapshot, self._collection, self._place)
        return save_seg(
            path,
            values,
            self.affine,
            image,
            segments,
            source=source,
            segmentation_type=segmentation_type,
            where=self.ref.describe(),
        )

    def _on_source_grid(self, voxels: npt.NDArray[Any], *, nearest: bool) -> npt.NDArray[Any]:
        shape, affine = grid_of(self._detail("header"))
        codes = self._detail("source_axcodes")
        if not codes:
            raise ConfigError(
                f"nobody noted on which grid the file of {self.ref.describe()} lies, or a transform moved voxels without telling; write it "
                "as it is stored: to_nifti(path, grid='stored')"
            )
        here, turned = turn_grid(voxels.shape, self.affine, self.axcodes, codes)
        if here[:3] == shape and grid_distance(turned, affine, shape) < _SAME * min(self.spacing):
            return turn(voxels, self.axcodes, codes)
        return resample(voxels, self.affine, shape, affine, nearest=nearest)

    def _detail(self, column: str) -> Any:
        return self._snapshot.detail(self._collection, column)[self._place]

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        mm = "x".join(f"{v:.3g}" for v in self.spacing)
        return f"Volume({self.obs_id!r}, {size} {self.ref.dtype}, {mm} mm, {self.axcodes})"
