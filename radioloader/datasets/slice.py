"""2D slices, with neighbours as channels (2.5D)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from radioloader.config import StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.table import Store
from radioloader.geometry import plane_axis
from radioloader.samplers.positions import as_whole
from radioloader.types import Box, SliceKey

__all__ = ["SliceDataset"]


class SliceDataset(StoreDataset):
    """Slices of one anatomical plane: ``image`` is (C * (2 * context + 1), H, W), the neighbours of a channel side by side.

    The plane is that of the array axis closest to its normal, whatever the storage orientation; H and W are the other two axes, in
    stored order. Neighbours outside the volume are ``pad_value``.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels; the time points of a 4D volume are channels.
        label: Label collection; of the slice itself, without neighbours.
        plane: ``"axial"``, ``"sagittal"`` or ``"coronal"``.
        context: Neighbouring slices on each side that become channels.
        pad_value: Value of image voxels outside the volume.
        targets: Columns of ``obs_meta`` that samples carry; a mapping from name in the sample to column renames them.
        subjects: Which subjects, in this order; None takes all.
        transform: Gets a sample and returns one; seeded by the sample's key.
        dtype: dtype of images; None keeps the stored one.
        seed: Seed of everything random.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        ConfigError: No such plane, or a negative ``context``.
        RadioloaderError: Arguments and store do not fit; see :class:`~radioloader.datasets.table.SubjectTable`.
    """

    _key_type = SliceKey

    def __init__(
        self,
        store: Store,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        plane: str = "axial",
        context: int = 0,
        pad_value: float = 0.0,
        targets: str | Sequence[str] | Mapping[str, str] = (),
        subjects: Sequence[str] | None = None,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        dtype: torch.dtype | None = torch.float32,
        seed: int = 0,
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        plane_axis("RAS", plane)  # a wrong plane fails here, not in the first batch
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
        self.plane = plane
        self.context = as_whole(context, "context", minimum=0)
        axes = [plane_axis(self.table.axcodes(volume), plane) for volume in range(len(self.table))]
        self._ends = np.cumsum(self.table.shapes[np.arange(len(self.table)), axes])

    @property
    def random(self) -> bool:
        return False

    def __len__(self) -> int:
        return int(self._ends[-1])

    def key(self, index: int, *, epoch: int = 0) -> SliceKey:
        volume = int(np.searchsorted(self._ends, index, side="right"))
        return SliceKey(volume, self.plane, index - (int(self._ends[volume - 1]) if volume else 0), 0, epoch)

    def _extra(self, key: SliceKey) -> tuple[int | str, ...]:
        return (key.plane, key.index)

    def _place(self, key: SliceKey, stream: Callable[[str], np.random.Generator]) -> tuple[Box, Box, int | None]:
        shape = self.table.shape(key.volume)
        axis = plane_axis(self.table.axcodes(key.volume), key.plane)
        if not 0 <= key.index < shape[axis]:
            raise IndexError(f"{key}: volume {self.table.obs_id(key.volume)!r} has {shape[axis]} {key.plane} slices")
        return (
            _slab(shape, axis, key.index, key.index + 1),
            _slab(shape, axis, key.index - self.context, key.index + self.context + 1),
            axis,
        )


def _slab(shape: tuple[int, int, int], axis: int, first: int, stop: int) -> Box:
    start, end = [0, 0, 0], list(shape)
    start[axis], end[axis] = first, stop
    return Box(tuple(start), tuple(end))  # type: ignore[arg-type]
