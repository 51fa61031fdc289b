"""A volume of a DICOM series on its way into a store, and what the catalog keeps of its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from radioloader.formats.dicom.geometry import Verdict
from radioloader.formats.dicom.origin import DicomOrigin
from radioloader.formats.dicom.pixels import hash_files, read_volume
from radioloader.formats.dicom.tags import is_uid
from radioloader.formats.dicom.volumes import DicomVolume, Policy
from radioloader.ingestion.array import from_array
from radioloader.ingestion.identity import Pseudonyms
from radioloader.ingestion.intake import Loaded, Place

__all__ = ["DicomSeries", "origin_of"]


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """A volume of a series as a :class:`~radioloader.ingestion.intake.VolumeSource`.

    Attributes:
        volume: What to read.
        policy: How it was laid out.
        pseudonyms: For its UIDs.
    """

    volume: DicomVolume
    policy: Policy
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)

    @property
    def name(self) -> str:
        """No path: folders are named after patients."""
        series = self.pseudonyms.uid(self.volume.facts.series)
        return f"dicom:{series}" + (f"#{self.volume.name}" if self.volume.name else "")

    @property
    def where(self) -> str:
        return self.volume.describe()

    @property
    def recipe(self) -> Mapping[str, Any]:
        policy = self.policy
        return {
            "on_tilt": policy.on_tilt,
            "on_irregular": policy.on_irregular,
            "slice_tolerance_mm": policy.tolerance_mm,
            "suv": policy.suv if self.volume.facts.modality == "PT" else "",
            "pseudonymized": self.pseudonyms.fingerprint,
            "tags": sorted(self.volume.facts.tags),
        }

    def place(self) -> Place:
        return Place(self.volume.shape, self.volume.laid_out[0].affine)

    def hash(self) -> str:
        return hash_files(self.volume)

    def load(self, orientation: str | None) -> Loaded:
        volume = self.volume
        grid, verdict = volume.laid_out
        read = read_volume(volume, suv=self.policy.suv if volume.facts.modality == "PT" else "")
        # UIDs that the user keeps are hashed like all others, so that they still match.
        tags = {
            keyword: self.pseudonyms.uid(str(value)) if is_uid(keyword) else value
            for keyword, value in volume.facts.tags.items()
        }
        if self.policy.suv and volume.facts.modality == "PT":
            tags["Units"] = "GML"
        columns = {"geometry": verdict.to_json(), "dicom": origin_of(volume, self.pseudonyms), **tags}
        return from_array(
            read.voxels,
            grid.affine,
            orientation,
            slope=read.slope,
            intercept=read.intercept,
            source_hash=read.source_hash,
            notes=(*volume.notes, *read.notes, *_notes(verdict)),
            columns=columns,
        )


def _notes(verdict: Verdict) -> tuple[str, ...]:
    return (f"geometry {verdict.describe()}",) if verdict.odd else ()


def origin_of(volume: DicomVolume, pseudonyms: Pseudonyms, *, label: str = "", classes: Sequence[int] = ()) -> bytes:
    """What the catalog keeps of where a volume comes from."""
    origin = DicomOrigin.of(
        volume, pseudonyms.uid, pseudonymized=bool(pseudonyms), label=pseudonyms.uid(label), classes=tuple(classes)
    )
    return origin.pack()
