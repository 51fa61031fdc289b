"""RadiObject 0.1.1, with what it exports and its default settings for each tiling."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from benchmarks.model import BATCH, Job
from benchmarks.peers.base import Feed, Peer, Unsupported, torch_loader

__all__ = ["RadiObject", "RadiObjectAxial", "RadiObjectSpawn"]

# 0.1.1 seeds each patch by its index, so that every epoch repeats the same ones: few would come from the page cache for ever.
_PATCHES_PER_VOLUME = 4000


class RadiObject(Peer):
    """``create_segmentation_dataloader`` over isotropic tiles."""

    packages: ClassVar[tuple[str, ...]] = ("radiobject", "tiledb", "torch", "numpy")
    folders: ClassVar[tuple[str, ...]] = ("radiobject-isotropic",)
    tiles: ClassVar[str] = "isotropic"

    def prepare(self) -> None:
        from radiobject import RadiObject as Store
        from radiobject import WriteConfig, configure
        from radiobject.ctx import CompressionConfig, Compressor, SliceOrientation, TileConfig

        configure(
            write=WriteConfig(
                tile=TileConfig(orientation=SliceOrientation(self.tiles)),
                compression=CompressionConfig(algorithm=Compressor.ZSTD, level=3),
            )
        )
        folders = {"CT": self.cohort.images()[0].parent, "seg": self.cohort.labels()[0].parent}
        images = {name: str(folder) for name, folder in folders.items()}
        Store.from_niftis(uri=str(self.cohort.folder / self.folders[0]), images=images, validate_alignment=True)

    def open(self) -> None:
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
        self._store = self._opened()

    def _opened(self) -> Any:
        from radiobject import RadiObject as Store

        return Store(str(self.cohort.folder / self.folders[0]))

    def reopen(self) -> Any:
        return self._opened().obs_subject_ids  # it reads nothing before

    def patches(self, job: Job) -> Feed:
        from radiobject.ml import create_segmentation_dataloader

        return Feed(
            create_segmentation_dataloader(
                image=self._store.CT,
                mask=self._store.seg,
                batch_size=BATCH,
                patch_size=(job.size,) * 3,
                num_workers=job.workers,
                persistent_workers=job.workers > 0,
                pin_memory=False,
                patches_per_volume=_PATCHES_PER_VOLUME,
            )
        )

    def _dataset(self, mode: str, batch: int, workers: int) -> Feed:
        from radiobject.ml.config import DatasetConfig, LoadingMode
        from radiobject.ml.datasets.segmentation_dataset import SegmentationDataset
        from radiobject.ml.utils.worker_init import worker_init_fn

        dataset = SegmentationDataset(self._store.CT, self._store.seg, DatasetConfig(loading_mode=LoadingMode(mode)))
        return Feed(torch_loader(dataset, batch, workers, worker_init_fn=worker_init_fn if workers else None))

    def volumes(self, job: Job) -> Feed:
        return self._dataset("full_volume", 1, job.workers)

    def slices(self, job: Job) -> Feed:
        if job.plane != "axial":
            raise Unsupported("its datasets have axial slices only")
        return self._dataset("slice_2d", BATCH, job.workers)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        return batch["image"], batch["mask"]

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        volume = self._store.CT.iloc[number]
        planes = [axis for axis, part in enumerate(index) if isinstance(part, int)]
        if planes:
            return getattr(volume, ("sagittal", "coronal", "axial")[planes[0]])(index[planes[0]])
        return volume[index] if index != (slice(None),) * 3 else volume.to_numpy()

    def lookup(self) -> Any:
        return self._store.loc[self.cohort.names[-1]].CT.iloc[0].shape


class RadiObjectSpawn(RadiObject):
    """The same store with worker processes that are spawned: with fork, Linux's default then, they deadlock. Its factory has no argument
    for that, so the default of the whole process is changed, which a user would have to find out."""

    def open(self) -> None:
        import torch.multiprocessing

        torch.multiprocessing.set_start_method("spawn", force=True)
        super().open()

    def prepare(self) -> None:
        raise Unsupported("uses the store of radiobject")


class RadiObjectAxial(RadiObject):
    """Axial tiles, its default."""

    folders: ClassVar[tuple[str, ...]] = ("radiobject-axial",)
    tiles: ClassVar[str] = "axial"
