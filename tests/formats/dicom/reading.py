"""Folders of DICOM read the way that ingest does it, in few words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from radioloader.formats.dicom.frames import Frame, Ignored, Instance, Pixels
from radioloader.formats.dicom.headers import read_instances
from radioloader.formats.dicom.pixels import DicomVoxels, read_volume
from radioloader.formats.dicom.volumes import DicomVolume, Policy, volumes_of
from tests.formats.dicom.volumes import Array, plane_of

__all__ = ["affine_of", "frames_of", "ignored", "instances", "one", "read", "values", "volumes"]

Files = Path | Iterable[Path]


def _paths(files: Files) -> list[str]:
    if isinstance(files, Path):
        files = sorted(path for path in files.rglob("*") if path.is_file()) if files.is_dir() else [files]
    return [str(path) for path in files]


def instances(files: Files) -> list[Instance]:
    """The instances of a folder, a file, or some files."""
    return [found for found in read_instances(_paths(files)) if isinstance(found, Instance)]


def ignored(files: Files) -> list[Ignored]:
    """What is none, and why."""
    return [found for found in read_instances(_paths(files)) if isinstance(found, Ignored)]


def volumes(files: Files, **policy: Any) -> list[DicomVolume]:
    """The volumes of one series; ``policy`` as in :class:`Policy`."""
    return volumes_of(instances(files), Policy(**policy).check())


def one(files: Files, **policy: Any) -> DicomVolume:
    """The only volume of one series, which can be ingested."""
    (volume,) = volumes(files, **policy)
    assert not volume.problem, volume.problem
    return volume


def affine_of(volume: DicomVolume) -> Array:
    """Its affine, (4, 4)."""
    return volume.laid_out[0].affine


def values(read: DicomVoxels) -> Array:
    """float64 values, slope and intercept applied."""
    scaled: Array = read.voxels.astype(np.float64) * read.slope + read.intercept
    return scaled


def read(files: Files, **policy: Any) -> tuple[Array, Array]:
    """Values and affine of the only volume of one series."""
    volume = one(files, **policy)
    found = values(read_volume(volume))
    assert found.shape == volume.shape
    return found, affine_of(volume)


def frames_of(affine: Array, depth: int, **values: Any) -> list[Frame]:
    """The frames of a volume of 40 x 30 pixels without any files, slice by slice; ``values`` are fields that all of them have."""
    plane = plane_of(affine)
    first = Frame(
        path="0",
        number=0,
        sop="1.0",
        position=(),
        orientation=tuple(plane.orientation),
        spacing=plane.spacing,
        pixels=Pixels(30, 40, "MONOCHROME2", 16, 16, 15, True, "", "1.2.840.10008.1.2.1"),
        slope=1.0,
        intercept=0.0,
        instance=None,
        frame_of_reference="1.9",
        thickness=plane.gap,
        kind=(),
        index=(),
    )
    return [
        replace(first, path=f"{k}", sop=f"1.{k}", position=tuple(plane.position(k).tolist()), **values)
        for k in range(depth)
    ]
