"""Whole volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader.config import StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.fit import as_size, fitted, fitted_shapes
from radioloader.datasets.table import Store
from radioloader.samplers.positions import Stream
from radioloader.types import Box, VolumeKey

__all__ = ["VolumeDataset"]


class VolumeDataset(StoreDataset):
    """Whole volumes, one sample a subject.

    Volumes of different shapes go into batches of one, are brought to one size (``pad_to``, ``crop_to``), or are batched by shape
    (:class:`~radioloader.EqualShapes`).

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels; the time points of a 4D volume are channels.
        label: Label collection.
        targets: Columns of ``obs_meta`` that samples carry; a mapping from name in the sample to column renames them.
        subjects: Which subjects, in this order; None takes all.
        transform: Gets a sample and returns one; seeded by the sample's key.
        pad_to: Size (x, y, z) in voxels to which smaller volumes are padded, centred; one number for a cube.
        crop_to: Size (x, y, z) in voxels to which larger volumes are cropped, centred: only that part is read. The same number for both
            brings every volume to one size.
        pad_value: Value of image voxels outside the volume; labels are 0 there.
        dtype: dtype of images; None keeps the stored one.
        seed: Seed of everything random.
        on_error: ``"raise"``, or ``"skip"``: samples that cannot be read are left out of their batch, logged and counted.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        RadioloaderError: Arguments and store do not fit; see :class:`~radioloader.datasets.table.SubjectTable`.
    """

    _key_type = VolumeKey

    def __init__(
        self,
        store: Store,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        targets: str | Sequence[str] | Mapping[str, str] = (),
        subjects: Sequence[str] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        pad_to: int | Sequence[int] | None = None,
        crop_to: int | Sequence[int] | None = None,
        pad_value: float = 0.0,
        dtype: torch.dtype | None = torch.float32,
        seed: int = 0,
        on_error: str = "raise",
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        self.pad_to = as_size(pad_to, "pad_to", 3)
        self.crop_to = as_size(crop_to, "crop_to", 3)
        super().__init__(
            store,
            image=image,
            label=label,
            targets=targets,
            subjects=subjects,
            transform=transform,
            dtype=dtype,
            pad_value=pad_value,
            seed=seed,
            on_error=on_error,
            grid_tolerance_mm=grid_tolerance_mm,
            config=config,
        )

    @property
    def random(self) -> bool:
        return False

    def _index(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "counts": np.ones(len(self.table), np.int64),
            "fitted": fitted_shapes(self.table.shapes, self.pad_to, self.crop_to),
        }

    def _shapes(self) -> npt.NDArray[np.int64]:
        return self.table.columns["fitted"]

    def _key(self, volume: int, number: int, epoch: int, draw: int | None) -> VolumeKey:
        return VolumeKey(volume, 0 if draw is None else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {
            "pad_to": self.pad_to and list(self.pad_to),
            "crop_to": self.crop_to and list(self.crop_to),
        }

    def _place(self, key: VolumeKey, stream: Stream) -> tuple[Box, Box, int | None]:
        box = fitted(Box.whole(self.table.shape(key.volume)), self.table.columns["fitted"][key.volume].tolist())
        return box, box, None
