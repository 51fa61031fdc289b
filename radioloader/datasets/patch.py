"""3D patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from radioloader.config import StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.table import Store
from radioloader.errors import ShapeError
from radioloader.samplers.positions import Positions, UniformPositions, as_triple, as_whole
from radioloader.types import Box, PatchKey

__all__ = ["PatchDataset"]


class PatchDataset(StoreDataset):
    """3D patches; only the tiles under a patch are read.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels; the time points of a 4D volume are channels.
        label: Label collection.
        patch_size: Voxels on each axis (x, y, z) of the stored grid; one number for a cube.
        positions: Where patches lie; None takes :class:`~radioloader.UniformPositions`.
        patches_per_volume: Patches of each volume in an epoch, where positions are drawn at random.
        pad: Allow patches larger than a volume; the volume is centred in them and ``pad_value`` is around it.
        pad_value: Value of image voxels outside the volume; labels are 0 there.
        targets: Columns of ``obs_meta`` that samples carry; a mapping from name in the sample to column renames them.
        subjects: Which subjects, in this order; None takes all.
        transform: Gets a sample and returns one; seeded by the sample's key.
        dtype: dtype of images; None keeps the stored one.
        seed: Seed of everything random.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        ShapeError: The patch is larger than a volume, and ``pad`` is not set.
        RadioloaderError: Arguments and store do not fit; see :class:`~radioloader.datasets.table.SubjectTable`.
    """

    _key_type = PatchKey

    def __init__(
        self,
        store: Store,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        patch_size: int | Sequence[int],
        positions: Positions | None = None,
        patches_per_volume: int = 1,
        pad: bool = False,
        pad_value: float = 0.0,
        targets: str | Sequence[str] | Mapping[str, str] = (),
        subjects: Sequence[str] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        dtype: torch.dtype | None = torch.float32,
        seed: int = 0,
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        self.patch_size = as_triple(patch_size, "patch_size", minimum=1)
        patches_per_volume = as_whole(patches_per_volume, "patches_per_volume", minimum=1)
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
            grid_tolerance_mm=grid_tolerance_mm,
            config=config,
        )
        small = np.flatnonzero((self.table.shapes < self.patch_size).any(axis=1))
        if small.size and not pad:
            volume = int(small[0])
            raise ShapeError(
                f"patch_size={self.patch_size} is larger than {small.size} of {len(self.table)} volumes, such as "
                f"{self.table.obs_id(volume)!r} of shape {self.table.shape(volume)}; choose a smaller patch, or pad=True"
            )
        self.positions: Positions = UniformPositions() if positions is None else positions
        counts = [self.positions.count(self.table.shape(v), self.patch_size) for v in range(len(self.table))]
        self._random = None in counts
        # Sample i belongs to the volume whose range of samples holds it.
        self._ends = np.cumsum([patches_per_volume if count is None else count for count in counts])

    @property
    def random(self) -> bool:
        return self._random

    def __len__(self) -> int:
        return int(self._ends[-1])

    def key(self, index: int, *, epoch: int = 0) -> PatchKey:
        volume = int(np.searchsorted(self._ends, index, side="right"))
        return PatchKey(volume, index - (int(self._ends[volume - 1]) if volume else 0), epoch)

    def _place(self, key: PatchKey, stream: Callable[[str], np.random.Generator]) -> tuple[Box, Box, int | None]:
        shape = self.table.shape(key.volume)
        start = self.positions.start(shape, self.patch_size, draw=key.draw, generator=stream("position"))
        box = Box.at(start, self.patch_size)
        return box, box, None
