"""A store as a Lightning ``DataModule``: patches, whole volumes or slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Unpack

from radioloader.config import SliceOrientation
from radioloader.container.radiobject import RadiObject
from radioloader.datasets.patch import PatchDataset
from radioloader.datasets.slice import SliceDataset
from radioloader.datasets.volume import VolumeDataset
from radioloader.lightning.base import Common, StoreDataModule
from radioloader.samplers.positions import Positions

__all__ = ["PatchDataModule", "SliceDataModule", "VolumeDataModule"]


class PatchDataModule(StoreDataModule):
    """Patches for training; whole volumes, one in a batch, for validation, test and prediction.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels.
        patch_size: Voxels of a training patch on each axis (x, y, z); one number for a cube.
        positions: Where training patches lie; None takes :class:`~radioloader.UniformPositions`.
        patches_per_volume: Training patches of each volume in an epoch.
        pad: Allow patches larger than a volume.
        **common: Label, split, batch size and all others: see :class:`~radioloader.lightning.StoreDataModule`.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | RadiObject,
        *,
        image: str | Sequence[str],
        patch_size: int | Sequence[int],
        positions: Positions | None = None,
        patches_per_volume: int = 1,
        pad: bool = False,
        **common: Unpack[Common],
    ) -> None:
        self._patches: dict[str, Any] = {
            "patch_size": patch_size,
            "positions": positions,
            "patches_per_volume": patches_per_volume,
            "pad": pad,
        }
        super().__init__(store, image=image, **common)

    def _dataset(self, part: str) -> Any:
        if part == "train":
            return PatchDataset(self.store, **self._common(part), **self._patches)
        return VolumeDataset(self.store, **self._common(part))


class VolumeDataModule(StoreDataModule):
    """Whole volumes, for training and all else.

    Volumes of different shapes need ``batch_size=1``, ``pad_to`` and ``crop_to``, or ``order=EqualShapes(batch_size)``.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels.
        pad_to: Size (x, y, z) in voxels to which smaller volumes are padded, centred; one number for a cube.
        crop_to: Size (x, y, z) in voxels to which larger volumes are cropped, centred.
        **common: Label, split, batch size and all others: see :class:`~radioloader.lightning.StoreDataModule`.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | RadiObject,
        *,
        image: str | Sequence[str],
        pad_to: int | Sequence[int] | None = None,
        crop_to: int | Sequence[int] | None = None,
        **common: Unpack[Common],
    ) -> None:
        self._sizes: dict[str, Any] = {"pad_to": pad_to, "crop_to": crop_to}
        super().__init__(store, image=image, **common)

    def _dataset(self, part: str) -> Any:
        return VolumeDataset(self.store, **self._common(part), **self._sizes)


class SliceDataModule(StoreDataModule):
    """2D slices with neighbours as channels (2.5D), for training and all else.

    In evaluation all slices of a case come in their order, on one rank; empty ones too, whatever ``skip_empty`` says of training.

    Args:
        store: URI, or an open store or selection of its subjects.
        image: Image collections, stacked as channels.
        plane: ``"axial"``, ``"sagittal"`` or ``"coronal"``, or the :class:`~radioloader.SliceOrientation` of that name.
        context: Neighbouring slices on each side that become channels.
        skip_empty: Which slices training leaves out: ``"image"`` constant ones, ``"label"`` those without foreground.
        block: So many neighbouring slices stay together when samples are shuffled, and are read at once.
        pad_to: Size (the two axes of the slice, in stored order) in voxels to which smaller slices are padded, centred.
        crop_to: Size to which larger slices are cropped, centred.
        **common: Label, split, batch size and all others: see :class:`~radioloader.lightning.StoreDataModule`.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | RadiObject,
        *,
        image: str | Sequence[str],
        plane: str | SliceOrientation = "axial",
        context: int = 0,
        skip_empty: str | None = None,
        block: int = 1,
        pad_to: int | Sequence[int] | None = None,
        crop_to: int | Sequence[int] | None = None,
        **common: Unpack[Common],
    ) -> None:
        self._slices: dict[str, Any] = {
            "plane": plane,
            "context": context,
            "block": block,
            "pad_to": pad_to,
            "crop_to": crop_to,
        }
        self._skip_empty = skip_empty
        super().__init__(store, image=image, **common)

    def _eval_batch_size(self, dataset: Any) -> int:
        shapes = dataset.layout.shapes
        return self._batch_size if bool((shapes == shapes[0]).all()) else 1

    def _dataset(self, part: str) -> Any:
        skip_empty = self._skip_empty if part == "train" else None
        return SliceDataset(self.store, **self._common(part), **self._slices, skip_empty=skip_empty)
