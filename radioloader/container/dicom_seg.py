"""Labels that were computed on DICOM images, back to DICOM: a segmentation (SEG) that refers to the images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import ConfigError, GridMismatchError
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.origin import DicomOrigin
from radioloader.formats.dicom.pixels import hash_files
from radioloader.formats.dicom.segwrite import SegmentSpec, write_seg
from radioloader.formats.dicom.volumes import DicomVolume, Policy
from radioloader.formats.orientation import turn
from radioloader.geometry import axcodes, grid_distance
from radioloader.ingestion.scan import scan_files
from radioloader.storage.catalog import PREDICTION, VolumeIndex
from radioloader.storage.snapshot import Snapshot

__all__ = ["Image", "Segments", "find_image", "save_seg"]

Segments = Sequence[str] | Mapping[int, str | SegmentSpec]
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_SAME = 1e-2
"""Of a voxel: grids that agree within this are one."""


@dataclass(frozen=True, slots=True)
class Image:
    """The image that a volume was made of or on.

    Attributes:
        origin: Its DICOM instances.
        policy: How it was laid out.
        source_hash: Hash of its files; empty where the store does not have the image itself.
    """

    origin: DicomOrigin
    policy: Policy
    source_hash: str


def find_image(snapshot: Snapshot, collection: str, place: int) -> Image:
    """The image of a volume: the instances that it notes itself; of a prediction, those of its input; else those of the image of its
    subject on the same grid.

    Raises:
        ConfigError: There are none, or images of several series could be meant.
    """
    index = snapshot.index(collection)
    data = snapshot.optional_detail(collection, "dicom")[place]
    own = None if data is None else DicomOrigin.unpack(data)
    candidates = list(_images(snapshot, str(index.subject_ids[place])))
    if own is not None:
        candidates = [one for one in candidates if one[2].slices == own.slices]
    else:
        inputs = _inputs(snapshot, collection, place)
        if inputs is not None:
            candidates = [one for one in candidates if (one[0], str(snapshot.index(one[0]).obs_ids[one[1]])) in inputs]
        candidates = [one for one in candidates if _on_grid(snapshot.index(one[0]), one[1], index, place)]
        if inputs is None and len({one[2].grid.series for one in candidates}) > 1:
            names = ", ".join(repr(str(snapshot.index(name).obs_ids[at])) for name, at, _ in candidates)
            raise ConfigError(
                f"{index.ref(place).describe()} lies on the grid of several images from DICOM ({names}), and does not say which one it was "
                "made on; say it by writing through that one: image.save_dicom_seg(label.to_numpy(), path)"
            )
    for name, at, origin in candidates:
        return Image(origin, _policy(snapshot, name, at), str(snapshot.detail(name, "source_hash")[at]))
    if own is not None:
        return Image(own, _policy(snapshot, collection, place), "")
    raise ConfigError(
        f"{index.ref(place).describe()} does not come from DICOM, and its subject has no image from DICOM on the same grid, so there are "
        "no instances that a segmentation could refer to; write it with to_nifti"
    )


def _inputs(snapshot: Snapshot, collection: str, place: int) -> set[tuple[str, str]] | None:
    """Collection and obs_id of the images that a prediction was made of; None of what is no prediction."""
    recipe = snapshot.collection(collection).recipe.get(PREDICTION)
    if recipe is None:
        return None
    return set(
        zip(recipe["arguments"]["image"], json.loads(snapshot.detail(collection, "source")[place])["of"], strict=True)
    )


def _on_grid(image: VolumeIndex, at: int, index: VolumeIndex, place: int) -> bool:
    shape = tuple(index.shapes[place, :3].tolist())
    return tuple(image.shapes[at, :3].tolist()) == shape and _same(image.affines[at], index.affines[place], shape)


def _images(snapshot: Snapshot, subject: str) -> Iterator[tuple[str, int, DicomOrigin]]:
    """The images of a subject that come from DICOM: collection, place in it, origin."""
    for name, info in snapshot.collections.items():
        if info.kind == "image":
            origins = snapshot.optional_detail(name, "dicom")
            for place in snapshot.index(name).of_subject(subject):
                if origins[place] is not None:
                    yield name, place, DicomOrigin.unpack(origins[place])


def _policy(snapshot: Snapshot, collection: str, place: int) -> Policy:
    recipe = json.loads(snapshot.detail(collection, "recipe")[place])["source"]
    return Policy(recipe["on_tilt"], recipe["on_irregular"], recipe["slice_tolerance_mm"])


def save_seg(
    path: str | os.PathLike[str],
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    image: Image,
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
        image: What it was made of or on.
        segments: Names by class.
        source: DICOM files of the images, or folders.
        segmentation_type: ``"BINARY"``, ``"LABELMAP"`` or ``"FRACTIONAL"``.
        where: The volume, for messages.

    Returns:
        Number of the segment by class.
    """
    grid, files = image.origin.grid, None
    if source is not None:
        grid, files = _from_files(image, source, where)
    elif image.origin.pseudonymized:
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


def _from_files(image: Image, source: Files, where: str) -> tuple[ImageGrid, list[str]]:
    """The grid with the UIDs of the files themselves, and the files of its frames.

    They must be the files of this image, and not others on the same grid: of a pseudonymised store their hash tells, else their UIDs.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    scan = scan_files([os.fspath(one) for one in given], image.policy)
    usable = [volume for volume in scan.volumes if not volume.problem]
    grid = image.origin.grid
    if image.origin.pseudonymized:
        fitting = [volume for volume in usable if _fits(volume, grid)]
        chosen = [volume for volume in fitting if image.source_hash and hash_files(volume) == image.source_hash]
    else:
        chosen = [volume for volume in usable if volume.laid_out[0].slices == grid.slices]
    if not chosen:
        raise GridMismatchError(
            f"{', '.join(map(str, given))} does not hold the files that {where} was ingested from; give that series, unchanged and whole"
        )
    volume = chosen[0]
    return volume.laid_out[0], sorted({frame.path for frames in volume.slices for frame in frames})


def _fits(volume: DicomVolume, grid: ImageGrid) -> bool:
    found, _ = volume.laid_out
    return found.shape == grid.shape and _same(found.affine, grid.affine, grid.shape)


def _same(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], shape: Iterable[int]) -> bool:
    least = float(np.linalg.norm(b[:3, :3], axis=0).min())
    return grid_distance(a, b, tuple(shape)) < _SAME * least
