"""Whole volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from radioloader.config import StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.table import Store
from radioloader.types import Box, VolumeKey

__all__ = ["VolumeDataset"]


class VolumeDataset(StoreDataset):
    """Whole volumes, one sample a subject.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels; the time points of a 4D volume are channels.
        label: Label collection.
        targets: Columns of ``obs_meta`` that samples carry; a mapping from name in the sample to column renames them.
        subjects: Which subjects, in this order; None takes all.
        transform: Gets a sample and returns one; seeded by the sample's key.
        dtype: dtype of images; None keeps the stored one.
        seed: Seed of everything random.
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
        dtype: torch.dtype | None = torch.float32,
        seed: int = 0,
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        super().__init__(
            store,
            image=image,
            label=label,
            targets=targets,
            subjects=subjects,
            transform=transform,
            dtype=dtype,
            pad_value=0.0,
            seed=seed,
            grid_tolerance_mm=grid_tolerance_mm,
            config=config,
        )

    @property
    def random(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self.table)

    def key(self, index: int, *, epoch: int = 0) -> VolumeKey:
        return VolumeKey(index, 0, epoch)

    def _place(self, key: VolumeKey, stream: Callable[[str], np.random.Generator]) -> tuple[Box, Box, int | None]:
        box = Box.whole(self.table.shape(key.volume))
        return box, box, None
