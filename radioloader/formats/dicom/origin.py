"""What a catalog keeps of the DICOM instances that a volume comes from: enough to write results for them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.formats.dicom.grid import FrameId, ImageGrid
from radioloader.formats.dicom.volumes import DicomVolume

__all__ = ["DicomOrigin"]


@dataclass(frozen=True, slots=True)
class DicomOrigin:
    """The instances of a volume.

    Attributes:
        grid: Where its voxels lie in the order of the frames, and which frames they are; UIDs are hashed when ``pseudonymized``.
        pseudonymized: Whether UIDs are keyed hashes.
        dimension: Name of the fourth axis; empty where there is none.
        values: Its value at each step.
        label: Of a label, SOPInstanceUID of the segmentation or structure set.
        classes: Of a label, the classes that it can hold.
    """

    grid: ImageGrid
    pseudonymized: bool = False
    dimension: str = ""
    values: tuple[str, ...] = ()
    label: str = ""
    classes: tuple[int, ...] = ()

    @property
    def slices(self) -> tuple[tuple[FrameId, ...], ...]:
        """For each slice along the normal, SOPInstanceUID and frame number (from 0) of its frames."""
        return self.grid.slices

    @classmethod
    def of(
        cls,
        volume: DicomVolume,
        uid: Callable[[str], str],
        *,
        pseudonymized: bool,
        label: str = "",
        classes: tuple[int, ...] = (),
    ) -> DicomOrigin:
        """The origin of a volume.

        Args:
            volume: With a grid.
            uid: What to keep of a UID.
            pseudonymized: Whether that is a hash.
            label: Of a label, its SOPInstanceUID as it is kept.
            classes: Of a label, its classes.
        """
        grid, _ = volume.laid_out
        known: dict[str, str] = {}

        def kept(text: str) -> str:
            if text not in known:
                known[text] = uid(text)
            return known[text]

        hidden = ImageGrid(
            shape=grid.shape,
            affine=grid.affine,
            origins=grid.origins,
            frame_of_reference=kept(grid.frame_of_reference),
            study=kept(grid.study),
            series=kept(grid.series),
            sop_class=grid.sop_class,
            slices=tuple(tuple((kept(sop), number) for sop, number in frames) for frames in grid.slices),
        )
        dimension = volume.dimension
        return cls(
            hidden,
            pseudonymized,
            "" if dimension is None else dimension.name,
            () if dimension is None else dimension.values,
            label,
            classes,
        )

    def pack(self) -> bytes:
        """As compressed JSON, for the catalog.

        Its keys are ``study``, ``series``, ``frame_of_reference``, ``sop_class``, ``shape``, ``affine`` (3, 4), ``slices``,
        ``pseudonymized``, and where they say something ``origins`` (Z, 3), ``dimension``, ``values``, ``label``, ``classes``.
        """
        grid = self.grid
        values: dict[str, Any] = {
            "study": grid.study,
            "series": grid.series,
            "frame_of_reference": grid.frame_of_reference,
            "sop_class": grid.sop_class,
            "shape": grid.shape,
            "affine": grid.affine[:3].tolist(),
            "slices": grid.slices,
            "pseudonymized": self.pseudonymized,
        }
        if not np.allclose(_even(grid.affine, grid.shape[2]), grid.origins, atol=1e-6):
            values["origins"] = grid.origins.tolist()
        for name in ("dimension", "values", "label", "classes"):
            if getattr(self, name):
                values[name] = getattr(self, name)
        # A table loses NULs at the end of a value, and the checksum that zlib ends with may be one.
        return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 6) + b"."

    @classmethod
    def unpack(cls, data: bytes) -> DicomOrigin:
        """What :meth:`pack` made."""
        values: Mapping[str, Any] = json.loads(zlib.decompressobj().decompress(data))
        x, y, z = values["shape"]
        affine = np.eye(4)
        affine[:3] = values["affine"]
        grid = ImageGrid(
            shape=(x, y, z),
            affine=affine,
            origins=np.array(values["origins"]) if "origins" in values else _even(affine, z),
            frame_of_reference=values["frame_of_reference"],
            study=values["study"],
            series=values["series"],
            sop_class=values["sop_class"],
            slices=tuple(tuple((sop, number) for sop, number in frames) for frames in values["slices"]),
        )
        return cls(
            grid,
            values["pseudonymized"],
            values.get("dimension", ""),
            tuple(values.get("values", ())),
            values.get("label", ""),
            tuple(values.get("classes", ())),
        )


def _even(affine: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """(count, 3) the origins of evenly spaced slices."""
    places: npt.NDArray[np.float64] = affine[:3, 3] + np.arange(count)[:, None] * affine[:3, 2]
    return places
