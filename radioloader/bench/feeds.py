"""The loaders that are measured: what a user's script would make, over the chosen subjects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radioloader.bench.amplification import in_patches, in_slices, in_volumes
from radioloader.bench.choose import Choice
from radioloader.bench.model import GROUPS, GROUPS_HOW, PATCHES, REGIONS, VOLUMES, Way, slices
from radioloader.container.radiobject import RadiObject
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.loader import DataLoader
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.slice import SliceDataset
from radioloader.datasets.volume import VolumeDataset
from radioloader.geometry import plane_axis
from radioloader.storage.uri import is_remote
from radioloader.types import Triple

__all__ = ["Feed", "Feeds"]

Transform = Callable[[dict[str, Any]], dict[str, Any]]

_EPOCH = 2**15
"""Patches of an epoch: more than a measurement takes, so that it does not fall into the gap between two epochs."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A loader and what is known of its samples.

    Attributes:
        way: What it is.
        loader: Gives batches.
        in_tiles: See :class:`~radioloader.bench.model.Figure`.
        decoded: Voxels in the tiles under a sample, on average: what a sample costs, before it is measured.
        nbytes: Size of a batch in bytes, at most.
        local: Whether what it reads are files of this machine.
        cycle: Batches that share what is decoded; only whole cycles tell what a batch costs.
    """

    way: Way
    loader: DataLoader
    in_tiles: float | None
    decoded: float
    nbytes: int
    local: bool
    cycle: int = 1


class Feeds:
    """Makes the loaders.

    Args:
        store: The store.
        choice: What is read of it.
        patch_size: Of patches, in voxels.
        batch_size: Samples in a batch of patches or slices; volumes, which differ in shape, come one by one.
        transform: Of patches; None for none. Slices and volumes go without: it may need patches.
        pin_memory: Whether batches of patches are pinned.
    """

    def __init__(
        self,
        store: RadiObject,
        choice: Choice,
        *,
        patch_size: Triple,
        batch_size: int,
        transform: Transform | None = None,
        pin_memory: bool = False,
    ) -> None:
        self._store, self.choice = store, choice
        self.patch_size, self.batch_size = patch_size, batch_size
        self._transform, self._pin = transform, pin_memory
        self._local = not is_remote(store.uri)
        index = store.snapshot.index(choice.image[0])
        places = [index.of_subject(subject)[0] for subject in choice.subjects]
        self.shapes = index.shapes[places, :3]
        self._codes = [index.axcodes(place) for place in places]
        self._tiles = store.snapshot.tiles(choice.image[0])[places]

    def restricted(self, subjects: tuple[str, ...]) -> Feeds:
        """The same of fewer subjects."""
        return Feeds(
            self._store,
            replace(self.choice, subjects=subjects),
            patch_size=self.patch_size,
            batch_size=self.batch_size,
            transform=self._transform,
            pin_memory=self._pin,
        )

    def patches(
        self, *, regions: bool = False, num_threads: int = 0, num_workers: int = 0, patience_s: float = 0.0
    ) -> Feed:
        """Random patches.

        Args:
            regions: In groups that share what is decoded.
            num_threads: Of the loader.
            num_workers: Of the loader.
            patience_s: How long to wait for a batch of a worker; 0 waits on.
        """
        positions = GROUPS if regions else None
        dataset = PatchDataset(
            self._store,
            **self._arguments,
            patch_size=self.patch_size,
            positions=positions,
            patches_per_volume=-(-_EPOCH // len(self.choice.subjects)),
            pad=True,
            transform=self._transform,
        )
        in_tiles = self._each(lambda n, tile, _: in_patches(n, self.patch_size, tile))
        sizes = np.minimum(self.shapes, self.patch_size).prod(axis=1)
        how = f"PatchDataset(positions={GROUPS_HOW if regions else 'UniformPositions()'})"
        return Feed(
            Way(REGIONS if regions else PATCHES, how, num_threads, num_workers),
            self._loader(
                dataset,
                num_threads=None if num_workers else num_threads,
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
                timeout=patience_s if num_workers else 0,
                pin_memory=self._pin,
                drop_last=True,
            ),
            None if regions else float(in_tiles.mean()),
            float((in_tiles * sizes).mean()),
            self._nbytes(dataset, int(np.prod(self.patch_size)) * self.batch_size),
            self._local,
            self._cycle(GROUPS.patches) if regions else 1,
        )

    def in_tiles(self, extent: int) -> float:
        """Voxels in the tiles under a patch for each voxel of it, if tiles were cubes of ``extent`` voxels."""
        return float(self._each(lambda n, _, __: in_patches(n, self.patch_size, np.minimum(extent, n).tolist())).mean())

    def volumes(self) -> Feed:
        """Whole volumes, one by one."""
        dataset = VolumeDataset(self._store, **self._arguments)
        in_tiles = self._each(lambda n, tile, _: in_volumes(n, tile))
        sizes = self.shapes.prod(axis=1)
        return Feed(
            Way(VOLUMES, "VolumeDataset()"),
            self._loader(dataset, batch_size=1),
            float(in_tiles.mean()),
            float((in_tiles * sizes).mean()),
            self._nbytes(dataset, int(sizes.max())),
            self._local,
        )

    def slices(self, plane: str, *, blocks: bool = False) -> Feed:
        """Random slices of a plane; with ``blocks`` those of a row of tiles follow each other."""
        axes, block = self._axes(plane), self.block(plane) if blocks else 1
        others = np.array([[1, 2], [0, 2], [0, 1]])[axes]
        planes = np.take_along_axis(self.shapes, others, axis=1)
        dataset = SliceDataset(
            self._store,
            **self._arguments,
            plane=plane,
            block=block,
            mix=GROUPS.mix if blocks else 1,
            pad_to=planes.max(axis=0).tolist(),  # slices of several volumes are stacked
        )
        in_tiles = self._each(lambda n, tile, codes: in_slices(n, plane_axis(codes, plane), tile))
        how = f"SliceDataset(plane={plane!r}" + (f", block={block}, mix={GROUPS.mix}" if blocks else "")
        how += ")" if (planes == planes[0]).all() else f", pad_to={planes.max(axis=0).tolist()})"
        return Feed(
            Way(slices(plane, blocks=blocks), how),
            self._loader(dataset),
            None if blocks else float(in_tiles.mean()),
            float((in_tiles * planes.prod(axis=1)).mean()),
            self._nbytes(dataset, int(planes.max(axis=0).prod()) * self.batch_size),
            self._local,
            self._cycle(block) if blocks else 1,
        )

    def _cycle(self, group: int) -> int:
        """Batches that :data:`GROUPS.mix` groups of so many samples make."""
        return -(-group * GROUPS.mix // self.batch_size)

    def block(self, plane: str) -> int:
        """Slices of a plane that most volumes' tiles hold."""
        across = np.take_along_axis(self._tiles, self._axes(plane)[:, None], axis=1).ravel()
        return int(np.bincount(across).argmax())

    def _axes(self, plane: str) -> npt.NDArray[np.int64]:
        return np.array([plane_axis(codes, plane) for codes in self._codes], np.int64)

    @property
    def _arguments(self) -> dict[str, Any]:
        choice = self.choice
        return {"image": list(choice.image), "label": choice.label, "subjects": list(choice.subjects)}

    def _loader(self, dataset: StoreDataset, **arguments: Any) -> DataLoader:
        given = {"batch_size": self.batch_size, "num_threads": 0} | arguments
        return DataLoader(dataset, shuffle=True, **given)

    def _each(self, of: Callable[[Any, Any, str], float]) -> npt.NDArray[np.float64]:
        """(n,) a number for each volume, of its shape, tiles and axis codes."""
        values = zip(self.shapes.tolist(), self._tiles.tolist(), self._codes, strict=True)
        return np.array([of(n, tile, codes) for n, tile, codes in values])

    def _nbytes(self, dataset: StoreDataset, voxels: int) -> int:
        table = dataset.table
        labels = 0 if self.choice.label is None else table.label_channels * max(map(_itemsize, table.label_dtypes()))
        return voxels * (4 * table.image_channels + labels)


def _itemsize(name: str) -> int:
    return np.dtype(name).itemsize
