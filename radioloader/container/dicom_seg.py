"""Labels that were computed on DICOM images, back to DICOM: a segmentation (SEG) that refers to the images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, GridMismatchError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.origin import DicomOrigin
from radioloader.formats.dicom.segwrite import SegmentSpec, write_seg
from radioloader.formats.dicom.volumes import DicomVolume, Policy
from radioloader.formats.orientation import turn
from radioloader.geometry import axcodes, grid_distance
from radioloader.ingestion.scan import scan_files
from radioloader.storage.snapshot import Snapshot

__all__ = ["Segments", "find_origin", "save_seg"]

Segments = Sequence[str] | Mapping[int, str | SegmentSpec]
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SAME = 1e-2
"""Of a voxel: grids that agree within this are one."""


def find_origin(snapshot: Snapshot, collection: str, place: int) -> DicomOrigin:
    """The DICOM instances that a volume was made of or on: its own, else those of an image of its subject on the same grid.

    Raises:
        ConfigError: There are none.
    """
    index = snapshot.index(collection)
    data = snapshot.optional_detail(collection, "dicom")[place]
    if data is not None:
        return DicomOrigin.unpack(data)
    subject = str(index.subject_ids[place])
    for name, info in snapshot.collections.items():
        if info.kind != "image" or name == collection:
            continue
        other = snapshot.index(name)
        origins = snapshot.optional_detail(name, "dicom")
        for candidate in other.of_subject(subject):
            same = np.array_equal(other.shapes[candidate, :3], index.shapes[place, :3]) and _same(
                other.affines[candidate], index.affines[place], tuple(index.shapes[place, :3].tolist())
            )
            if same and origins[candidate] is not None:
                return DicomOrigin.unpack(origins[candidate])
    raise ConfigError(
        f"{index.ref(place).describe()} does not come from DICOM, and its subject has no image from DICOM on the same grid, so there are "
        "no instances that a segmentation could refer to; write it with to_nifti"
    )


def save_seg(
    path: str | os.PathLike[str],
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    origin: DicomOrigin,
    segments: Segments | None,
    *,
    source: Files | None,
    segmentation_type: str,
    where: str,
) -> dict[int, int]:
    """Write classes as a SEG.

    Args:
        path: The file.
        voxels: (X, Y, Z) classes, or (X, Y, Z, C) channels, or values from 0 to 1, as a store has them.
        affine: (4, 4) of ``voxels``.
        origin: The instances.
        segments: Names by class.
        source: DICOM files of the images, or folders.
        segmentation_type: ``"BINARY"``, ``"LABELMAP"`` or ``"FRACTIONAL"``.
        where: The volume, for messages.

    Returns:
        Number of the segment by class.
    """
    grid, files = origin.grid, None
    if source is not None:
        grid, files = _from_files(origin.grid, source, where)
    elif origin.pseudonymized:
        raise ConfigError(
            f"the store keeps keyed hashes of the UIDs of {where} (pseudonymize), so a segmentation could not refer to its images; give "
            "their files: source=folder"
        )
    codes, own = axcodes(affine), axcodes(grid.affine)
    placed = turn(voxels, codes, own)
    if segments is None:
        segments = _class_names(placed, segmentation_type)
    elif not isinstance(segments, Mapping):
        segments = dict(enumerate(segments, 1))
    return write_seg(path, placed, grid, segments, source=files, segmentation_type=segmentation_type)  # type: ignore[arg-type]


def _class_names(voxels: npt.NDArray[Any], segmentation_type: str) -> dict[int, str]:
    if voxels.ndim == 4:
        return {channel: f"class {channel}" for channel in range(1, voxels.shape[3] + 1)}
    if voxels.dtype.kind in "fb" or segmentation_type == "FRACTIONAL":
        return {1: "class 1"}
    return {int(value): f"class {int(value)}" for value in np.unique(voxels) if value}


def _from_files(grid: ImageGrid, source: Files, where: str) -> tuple[ImageGrid, list[str]]:
    """The grid with the UIDs of the files themselves, and the files of its frames."""
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    scan = scan_files([os.fspath(one) for one in given], Policy(on_irregular="keep"))
    own = {sop for frames in grid.slices for sop, _ in frames}
    fitting = [volume for volume in scan.volumes if not volume.problem and _fits(volume, grid)]
    named = [volume for volume in fitting if own & _sops(volume)]
    chosen = named or fitting
    if len({volume.facts.series for volume in chosen}) != 1:
        what = f"{len(chosen)} series on its grid" if chosen else "no series on its grid"
        raise GridMismatchError(
            f"{', '.join(map(str, given))} holds {what}, expected the one that {where} was ingested from; give the files of that series"
        )
    volume = chosen[0]
    found, _ = volume.laid_out
    return found, sorted({frame.path for frames in volume.slices for frame in frames})


def _sops(volume: DicomVolume) -> set[str]:
    return {frame.sop for frames in volume.slices for frame in frames}


def _fits(volume: DicomVolume, grid: ImageGrid) -> bool:
    found, _ = volume.laid_out
    return found.shape == grid.shape and _same(found.affine, grid.affine, grid.shape)


def _same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: Iterable[int]) -> bool:
    least = float(np.linalg.norm(b[:3, :3], axis=0).min())
    return grid_distance(a, b, tuple(shape)) < _SAME * least
