"""2D slices, with neighbours as channels (2.5D)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radioloader._checks import as_whole
from radioloader.config import SliceOrientation, StorageConfig
from radioloader.datasets.base import StoreDataset
from radioloader.datasets.fit import as_size, fitted, fitted_shapes
from radioloader.datasets.table import Store
from radioloader.errors import ConfigError
from radioloader.geometry import plane_axis, plane_name
from radioloader.samplers.positions import Stream
from radioloader.storage.catalog import occupied_slices
from radioloader.types import Box, SliceKey, Triple

__all__ = ["SliceDataset"]


class SliceDataset(StoreDataset):
    """Slices of one anatomical plane: ``image`` is (C * (2 * context + 1), H, W), the neighbours of a channel side by side.

    The plane is that of the array axis closest to its normal, whatever the storage orientation; H and W are the other two axes, in
    stored order. Neighbours outside the volume are ``pad_value``.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels; the time points of a 4D volume are channels.
        label: Label collection; of the slice itself, without neighbours.
        plane: ``"axial"``, ``"sagittal"`` or ``"coronal"``, or the :class:`~radioloader.SliceOrientation` of that name.
        context: Neighbouring slices on each side that become channels.
        skip_empty: ``"image"`` leaves out slices that hold nothing but the lowest value of their volume in all images (background),
            ``"label"`` slices without foreground, both going by what ingest noted.
        block: So many neighbouring slices stay together when samples are shuffled. They are read at once, with the first of them, and
            kept for the others: tiles that span slices are then decoded once a block instead of once a slice. The extent of the tiles
            is best.
        mix: Blocks whose slices come in turn when samples are shuffled, so that a batch holds several volumes. So many blocks are kept at
            a time.
        pad_to: Size (the two axes of the slice, in stored order) in voxels to which smaller slices are padded, centred.
        crop_to: Size to which larger slices are cropped, centred.
        pad_value: Value of image voxels outside the volume.
        targets: Columns of ``obs_meta`` that samples carry; a mapping from name in the sample to column renames them.
        subjects: Which subjects, in this order; None takes all.
        transform: Gets a sample and returns one; seeded by the sample's key.
        dtype: dtype of images; None keeps the stored one.
        seed: Seed of everything random.
        on_error: ``"raise"``, or ``"skip"``: samples that cannot be read are left out of their batch, logged and counted.
        grid_tolerance_mm: How far apart, in mm, the collections' grids may lie.
        config: Access and threads; None takes the store's.

    Raises:
        ConfigError: No such plane, a negative ``context``, or no slice that is not empty.
        RadioloaderError: Arguments and store do not fit; see :class:`~radioloader.datasets.table.SubjectTable`.
    """

    _key_type = SliceKey

    def __init__(
        self,
        store: Store,
        *,
        image: str | Sequence[str],
        label: str | None = None,
        plane: str | SliceOrientation = "axial",
        context: int = 0,
        skip_empty: str | None = None,
        block: int = 1,
        mix: int = 1,
        pad_to: int | Sequence[int] | None = None,
        crop_to: int | Sequence[int] | None = None,
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
        self.plane = plane_name(plane)  # a str, whatever was given: keys and fingerprints hold it
        self.context = as_whole(context, "context", minimum=0)
        self.block = as_whole(block, "block", minimum=1)
        self.mix = as_whole(mix, "mix", minimum=1)
        self.pad_to = as_size(pad_to, "pad_to", 2)
        self.crop_to = as_size(crop_to, "crop_to", 2)
        if skip_empty not in (None, "image", "label"):
            raise ConfigError(f"skip_empty={skip_empty!r} is not one of None, 'image', 'label'")
        if skip_empty == "label" and label is None:
            raise ConfigError("skip_empty='label' needs a label collection: give label=")
        self.skip_empty = skip_empty
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

    def _index(self) -> dict[str, npt.NDArray[Any]]:
        codes = self.table.columns["axcodes"]
        known, inverse = np.unique(codes, return_inverse=True)
        axes = np.array([plane_axis(str(code), self.plane) for code in known], np.int64)[inverse.ravel()]
        counts = self.table.shapes[np.arange(len(self.table)), axes]
        others = np.array([[1, 2], [0, 2], [0, 1]])[axes]
        columns = {
            "axis": axes,
            "fitted": fitted_shapes(np.take_along_axis(self.table.shapes, others, 1), self.pad_to, self.crop_to),
        }
        if self.skip_empty is None:
            return columns | {"counts": counts}
        used = [np.flatnonzero(mask[:count]) for mask, count in zip(self._used(axes), counts.tolist(), strict=True)]
        if not any(len(part) for part in used):
            raise ConfigError(f"skip_empty={self.skip_empty!r} leaves no slice: all are empty")
        return columns | {
            "counts": np.array([len(part) for part in used], np.int64),
            "used": np.concatenate(used).astype(np.int32),
        }

    def _used(self, axes: npt.NDArray[np.int64]) -> list[npt.NDArray[np.bool_]]:
        """For each volume, which slices are not empty, in one of the collections that are asked."""
        numbers = [len(self.image)] if self.skip_empty == "label" else range(len(self.image))
        result: list[npt.NDArray[np.bool_]] = []
        for number in numbers:
            noted = self.table.details(number, ["occupied"])["occupied"].tolist()
            masks = [occupied_slices(data, self.table.shape(v), int(axes[v])) for v, data in enumerate(noted)]
            result = masks if not result else [a | b for a, b in zip(result, masks, strict=True)]
        return result

    @property
    def random(self) -> bool:
        return False

    @property
    def _mix(self) -> int:
        return self.mix

    @property
    def _any_draw(self) -> bool:
        return False

    @property
    def _unit(self) -> int:
        return self.block

    def _shapes(self) -> npt.NDArray[np.int64]:
        return self.table.columns["fitted"]

    def _key(self, volume: int, number: int, epoch: int, draw: int | None) -> SliceKey:
        if self.skip_empty is not None:
            number = int(self.table.columns["used"][int(self.layout.starts[volume]) + number])
        return SliceKey(volume, self.plane, number, 0 if draw is None else draw, epoch)

    def fingerprint(self) -> dict[str, Any]:
        names = ("plane", "context", "block", "mix", "skip_empty", "pad_to", "crop_to")
        values = {name: getattr(self, name) for name in names}
        return super().fingerprint() | {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    def _extra(self, key: SliceKey) -> tuple[int | str, ...]:
        return (key.plane, key.index)

    def _place(self, key: SliceKey, stream: Stream) -> tuple[Box, Box, int | None]:
        shape = self.table.shape(key.volume)
        axis = plane_axis(self.table.axcodes(key.volume), key.plane)
        if not 0 <= key.index < shape[axis]:
            raise IndexError(f"{key}: volume {self.table.obs_id(key.volume)!r} has {shape[axis]} {key.plane} slices")
        around = key.index - self.context, key.index + self.context + 1
        return self._slab(shape, axis, key.index, key.index + 1), self._slab(shape, axis, *around), axis

    def _slab(self, shape: Triple, axis: int, first: int, stop: int) -> Box:
        start, end = [0, 0, 0], list(shape)
        start[axis], end[axis] = first, stop
        slab = Box((start[0], start[1], start[2]), (end[0], end[1], end[2]))
        others = [shape[a] for a in range(3) if a != axis]
        size = fitted_shapes(np.array(others), self.pad_to, self.crop_to).tolist()
        size.insert(axis, stop - first)
        return fitted(slab, size)

    def _region(self, key: SliceKey, box: Box) -> Box | None:
        if self.block == 1:
            return None
        axis = plane_axis(self.table.axcodes(key.volume), key.plane)
        first, stop = self._neighbours(key.volume, key.index)
        start, end = list(box.start), list(box.stop)
        start[axis], end[axis] = first - self.context, stop + self.context
        return Box((start[0], start[1], start[2]), (end[0], end[1], end[2]))

    def _neighbours(self, volume: int, index: int) -> tuple[int, int]:
        """First slice, and one past the last, of the block that a slice belongs to."""
        if self.skip_empty is None:
            first = index // self.block * self.block
            return first, first + self.block
        begin, end = (int(place) for place in self.layout.starts[volume : volume + 2])
        used = self.table.columns["used"][begin:end]
        place = int(np.searchsorted(used, index))
        if place == len(used) or used[place] != index:  # a key of one's own
            return index, index + 1
        first = place // self.block * self.block
        return int(used[first]), int(used[min(first + self.block, len(used)) - 1]) + 1
