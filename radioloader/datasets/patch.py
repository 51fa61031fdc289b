"""3D patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader._checks import as_whole
from radioloader.config import StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.table import Store
from radioloader.errors import ConfigError, ShapeError
from radioloader.samplers.centres import ForegroundPositions
from radioloader.samplers.positions import (
    Positions,
    Site,
    Stream,
    UniformPositions,
    as_triple,
    check_positions,
)
from radioloader.storage.foreground import foreground_of
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
        on_error: ``"raise"``, or ``"skip"``: samples that cannot be read are left out of their batch, logged and counted.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        ShapeError: The patch is larger than a volume, and ``pad`` is not set.
        ConfigError: The positions do not fit: patches that are no whole tiles, no label or no foreground index.
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
        on_error: str = "raise",
        grid_tolerance_mm: float = 0.05,
        config: StorageConfig | None = None,
    ) -> None:
        self.patch_size = as_triple(patch_size, "patch_size", minimum=1)
        patches_per_volume = as_whole(patches_per_volume, "patches_per_volume", minimum=1)
        self.positions: Positions = UniformPositions() if positions is None else positions
        check_positions(self.positions)
        self.patches_per_volume = patches_per_volume
        self.pad = pad
        if getattr(self.positions, "needs_foreground", False) and label is None:
            raise ConfigError(f"{self.positions!r} needs a label collection: give label=")
        reads = getattr(self.positions, "reads", None)
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
            extra=[reads] if reads is not None else (),
        )

    def _index(self) -> dict[str, npt.NDArray[Any]]:
        small = np.flatnonzero((self.table.shapes < self.patch_size).any(axis=1))
        if small.size and not self.pad:
            volume = int(small[0])
            raise ShapeError(
                f"patch_size={self.patch_size} is larger than {small.size} of {len(self.table)} volumes, such as "
                f"{self.table.obs_id(volume)!r} of shape {self.table.shape(volume)}; choose a smaller patch, or pad=True"
            )
        kinds = np.concatenate([self.table.shapes, self.table.columns["tile.0"]], axis=1)
        _, first, inverse = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        by_kind = [self.positions.count(self._site(volume), self.patch_size) for volume in first.tolist()]
        self._random = any(count is None for count in by_kind)
        numbers = np.array([self.patches_per_volume if count is None else count for count in by_kind], np.int64)
        counts = numbers[inverse.ravel()]
        reads = getattr(self.positions, "reads", None)
        if reads is not None and (self.table.columns[f"shape.{len(self.table.collections) - 1}"][:, 3] > 1).any():
            raise ConfigError(f"{self.positions!r} reads the collection {reads!r}, which has more than one time point")
        foreground = self.table.foreground() if getattr(self.positions, "needs_foreground", False) else {}
        if isinstance(self.positions, ForegroundPositions):
            self.positions.check_classes(np.unique(foreground["foreground.class"]).tolist())
        return {"counts": counts, **foreground}

    @property
    def random(self) -> bool:
        return self._random

    @property
    def _any_draw(self) -> bool:
        return self._random

    @property
    def _unit(self) -> int:
        return int(getattr(self.positions, "group", 1))

    @property
    def _mix(self) -> int:
        return int(getattr(self.positions, "mix", 1))

    def _shapes(self) -> npt.NDArray[np.int64]:
        return np.broadcast_to(np.array(self.patch_size, np.int64), (len(self.table), 3))

    def _key(self, volume: int, number: int, epoch: int, draw: int | None) -> PatchKey:
        return PatchKey(volume, number if draw is None or not self._random else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"patch_size": list(self.patch_size), "positions": repr(self.positions)}

    def _site(self, volume: int) -> Site:
        x, y, z = self.table.columns["tile.0"][volume].tolist()
        return Site(
            shape=self.table.shape(volume),
            tile=(x, y, z),
            name=self.table.images(volume)[0].uri,
            foreground=lambda: foreground_of(self.table.columns, volume),
            read=lambda collection, box: self._reader.read(self.table.extra(volume, collection), box),
        )

    def _place(self, key: PatchKey, stream: Stream) -> tuple[Box, Box, int | None]:
        start = self.positions.start(self._site(key.volume), self.patch_size, draw=key.draw, stream=stream)
        box = Box.at(start, self.patch_size)
        return box, box, None

    def _region(self, key: PatchKey, box: Box) -> Box | None:
        if self._unit == 1 or not hasattr(self.positions, "region"):
            return None
        region: Box = self.positions.region(self._site(key.volume), self.patch_size, box.start)
        return region
