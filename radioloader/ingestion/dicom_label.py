"""A segmentation or structure set on its way into a store, on the grid of the image that it refers to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.errors import FormatError
from radioloader.formats.dicom.frames import Instance
from radioloader.formats.dicom.grid import ImageGrid
from radioloader.formats.dicom.labels import combine, match_classes
from radioloader.formats.dicom.pixels import source_grid
from radioloader.formats.dicom.resample import resample_stack
from radioloader.formats.dicom.volumes import DicomVolume, Policy
from radioloader.ingestion.dicom_source import DicomSource
from radioloader.ingestion.dicom_volume import from_array, origin_of
from radioloader.ingestion.identity import Pseudonyms
from radioloader.ingestion.intake import Loaded, Place

__all__ = ["DicomLabel", "find_image", "separate_classes"]


def separate_classes(source: DicomSource) -> list[tuple[str, int | None]]:
    """The collections that a label source makes: a suffix and the class that goes there; None is all classes."""
    if source.on_overlap != "separate" or not source.structures:
        return [("", None)]
    patterns: dict[int, str] = {}
    for pattern, value in source.structures.items():
        patterns.setdefault(value, pattern)
    return [(pattern.strip("*?") or f"class{value}", value) for value, pattern in sorted(patterns.items())]


def find_image(label: Instance, volumes: Sequence[DicomVolume]) -> tuple[DicomVolume | None, str]:
    """The volume that a label refers to, or None and why there is none."""
    of_series = [volume for volume in volumes if volume.facts.series in label.images]
    if not of_series and label.images:
        return None, (
            f"it refers to the series {', '.join(label.images)}, of which there is no usable volume among the files; give the folder that "
            "holds it"
        )
    if not of_series:
        of_series = [
            volume
            for volume in volumes
            if volume.grid is not None and label.frame_of_reference and volume.grid.frame_of_reference == label.frame_of_reference
        ]
        if not of_series:
            return None, "it does not say which images it is about (no referenced series, no frame of reference that fits)"
    shared = [
        sum(sop in label.pictures for slices in volume.grid.slices for sop, _ in slices) if volume.grid is not None else 0
        for volume in of_series
    ]
    best = [volume for volume, count in zip(of_series, shared, strict=True) if count == max(shared)]
    if len(best) > 1 and len({_grid_key(volume) for volume in best}) > 1:
        names = ", ".join(repr(volume.name or volume.facts.series) for volume in best)
        return None, f"it fits several volumes ({names}), and does not say which"
    return best[0], ""


def _grid_key(volume: DicomVolume) -> tuple[object, ...]:
    assert volume.grid is not None
    return volume.grid.shape, np.round(volume.grid.affine, 3).tobytes()


@dataclass(frozen=True, slots=True)
class DicomLabel:
    """A label as a :class:`~radioloader.ingestion.intake.VolumeSource`.

    Attributes:
        label: The segmentation or structure set.
        image: The volume whose grid it is put on.
        policy: How that was laid out.
        pseudonyms: For its UIDs.
        structures: Class by pattern of the structure's name; None: see :class:`~radioloader.DicomSource`.
        only: The class that is taken (as 1); None takes all.
    """

    label: Instance
    image: DicomVolume
    policy: Policy
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)
    structures: Mapping[str, int] | None = None
    only: int | None = None

    @property
    def name(self) -> str:
        return f"dicom:{self.pseudonyms.uid(self.label.sop)}" + ("" if self.only is None else f"#{self.only}")

    @property
    def where(self) -> str:
        return self.label.path

    @property
    def recipe(self) -> Mapping[str, Any]:
        return {
            "on_tilt": self.policy.on_tilt,
            "on_irregular": self.policy.on_irregular,
            "slice_tolerance_mm": self.policy.tolerance_mm,
            "pseudonymized": bool(self.pseudonyms),
            "structures": None if self.structures is None else dict(self.structures),
            "only": self.only,
        }

    def place(self) -> Place:
        assert self.image.grid is not None
        return Place(self.image.grid.shape, self.image.grid.affine)

    def hash(self) -> str:
        digest = hashlib.sha256()
        try:
            with open(self.label.path, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise FormatError(f"{self.label.path}: could not be read: {error.strerror or error}") from error
        assert self.image.grid is not None
        digest.update(repr(self.image.grid.shape).encode())
        digest.update(np.ascontiguousarray(self.image.grid.affine, "<f8").tobytes())
        return digest.hexdigest()

    def load(self, orientation: str | None) -> Loaded:
        image = self.image
        assert image.grid is not None and image.verdict is not None
        notes: list[str] = []
        voxels, names = self._voxels(notes)
        columns = {
            "geometry": image.verdict.to_json(),
            "dicom": origin_of(image, self.pseudonyms, label=self.pseudonyms.uid(self.label.sop), classes=names),
            "Modality": self.label.facts.modality,
        }
        return from_array(
            voxels, image.grid, orientation, source_hash=self.hash(), notes=tuple(notes), columns=columns
        )

    def _voxels(self, notes: list[str]) -> tuple[npt.NDArray[Any], list[int]]:
        """Classes (X, Y, Z) on the image's stored grid, and which there are."""
        raise NotImplementedError
