"""MONAI's datasets, with the transforms of its tutorials; four patches are cut from each volume that is loaded."""

from __future__ import annotations

from typing import Any, ClassVar

import monai.data
import monai.transforms as mt

from benchmarks.model import BATCH, Job
from benchmarks.peers.base import Feed, Peer, torch_loader

__all__ = ["Cache", "CacheNoCopy", "Persistent", "Plain"]

_KEYS = ("image", "label")


class Plain(Peer):
    """``Dataset`` on ``.nii.gz``."""

    packages: ClassVar[tuple[str, ...]] = ("monai", "nibabel", "torch", "numpy")

    @property
    def files(self) -> list[dict[str, str]]:
        """MONAI's data list."""
        pairs = zip(self.cohort.images(), self.cohort.labels(), strict=True)
        return [{"image": str(image), "label": str(label)} for image, label in pairs]

    def load(self) -> list[Any]:
        """The deterministic transforms."""
        return [mt.LoadImaged(_KEYS), mt.EnsureChannelFirstd(_KEYS)]

    def crop(self, size: tuple[int, int, int]) -> list[Any]:
        """The random ones."""
        return [mt.RandSpatialCropSamplesd(_KEYS, roi_size=size, num_samples=BATCH, random_size=False)]

    def dataset(self, transforms: list[Any]) -> Any:
        """The dataset."""
        return monai.data.Dataset(self.files, mt.Compose(transforms))

    def patches(self, job: Job) -> Feed:
        dataset = self.dataset([*self.load(), *self.crop((job.size,) * 3)])
        return Feed(torch_loader(dataset, 1, job.workers, monai.data.DataLoader))

    def volumes(self, job: Job) -> Feed:
        return Feed(torch_loader(self.dataset(self.load()), 1, job.workers, monai.data.DataLoader))

    def slices(self, job: Job) -> Feed:
        axis = ("sagittal", "coronal", "axial").index(job.plane)
        x, y, z = (1 if a == axis else n for a, n in enumerate(self.cohort.shape))
        dataset = self.dataset([*self.load(), *self.crop((x, y, z)), mt.SqueezeDimd(_KEYS, dim=axis + 1)])
        return Feed(torch_loader(dataset, 1, job.workers, monai.data.DataLoader))

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        return mt.LoadImage(image_only=True)(self.cohort.images()[number])[index]


class Cache(Plain):
    """``CacheDataset`` with all volumes in memory, as it comes: each visit copies the cached volume."""

    copy: ClassVar[bool] = True

    def open(self) -> None:
        transforms = mt.Compose([*self.load(), *self.crop((64,) * 3)])
        self._cached = monai.data.CacheDataset(
            self.files, transforms, cache_rate=1.0, num_workers=2, progress=False, copy_cache=self.copy
        )

    def dataset(self, transforms: list[Any]) -> Any:
        self._cached.transform = mt.Compose(transforms)  # the same deterministic part, which is cached
        return self._cached


class CacheNoCopy(Cache):
    """``CacheDataset(copy_cache=False)``."""

    copy: ClassVar[bool] = False


class Persistent(Plain):
    """``PersistentDataset``: what the deterministic transforms give, on disk."""

    folders: ClassVar[tuple[str, ...]] = ("monai-persistent",)

    def prepare(self) -> None:
        dataset = self.dataset([*self.load(), *self.crop((64,) * 3)])
        for number in range(self.cohort.subjects):
            dataset[number]

    def dataset(self, transforms: list[Any]) -> Any:
        folder = self.cohort.folder / "monai-persistent"
        return monai.data.PersistentDataset(self.files, mt.Compose(transforms), cache_dir=folder)
