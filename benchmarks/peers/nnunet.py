"""nnU-Net v2's own dataset and loader."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np

from benchmarks.model import BATCH, Job
from benchmarks.peers.base import Feed, Peer, Unsupported

__all__ = ["NNUNet"]

_FOREGROUND = 0.33  # its trainer's share of patches that are centred on foreground


class NNUNet(Peer):
    """``nnUNetDatasetBlosc2`` and ``nnUNetDataLoader``, worker processes as its trainer starts them, without transforms.

    Its files are written as its preprocessor writes them: float32 images, clipped and normalised by what stands for a fingerprint here,
    int16 labels, chunks that fit the patch size (one folder for each). Cropping and resampling are left out.
    """

    packages: ClassVar[tuple[str, ...]] = ("nnunetv2", "blosc2", "batchgenerators", "torch", "numpy")
    folders: ClassVar[tuple[str, ...]] = ("nnunet-64", "nnunet-128", "nnunet-2d")

    def __init__(self, cohort: Any) -> None:
        super().__init__(cohort)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ.setdefault(name, str(cohort.folder / name))

    def prepare(self) -> None:
        from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

        sizes: dict[str, tuple[int, ...]] = {"64": (64,) * 3, "128": (128,) * 3, "2d": self.cohort.shape[1::-1]}
        for number, name in enumerate(self.cohort.names):
            # Axes c, z, y, x, as its SimpleITK reader gives them.
            image, label = (np.ascontiguousarray(array.T)[None] for array in self.cohort.load(number))
            image = (np.clip(image.astype(np.float32), -900, 1500) - 50) / 350
            label = label.astype(np.int16)
            properties = {
                "spacing": [1.0, 0.45, 0.45],
                "class_locations": DefaultPreprocessor._sample_foreground_locations(label, [1, 2, 3]),
            }
            for kind, size in sizes.items():
                folder = self.cohort.folder / f"nnunet-{kind}"
                folder.mkdir(exist_ok=True)
                blocks, chunks = comp_blosc2_params(image.shape, size, image.itemsize)
                label_blocks, label_chunks = comp_blosc2_params(label.shape, size, label.itemsize)
                nnUNetDatasetBlosc2.save_case(
                    image,
                    label,
                    properties,
                    str(folder / name),
                    chunks=chunks,
                    blocks=blocks,
                    chunks_seg=label_chunks,
                    blocks_seg=label_blocks,
                )

    def _feed(self, kind: str, size: tuple[int, ...], batch: int, workers: int, foreground: float) -> Feed:
        from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
        from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
        from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
        from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
        from nnunetv2.utilities.label_handling.label_handling import LabelManager

        labels = LabelManager({"background": 0, "dense": 1, "large": 2, "small": 3}, None)
        dataset = nnUNetDatasetBlosc2(str(self.cohort.folder / f"nnunet-{kind}"))
        loader = nnUNetDataLoader(dataset, batch, size, size, labels, oversample_foreground_percent=foreground)
        if not workers:
            return Feed(SingleThreadedAugmenter(loader, None))
        augmenter = NonDetMultiThreadedAugmenter(
            loader, None, workers, num_cached=max(6, workers // 2), seeds=None, pin_memory=False, wait_time=0.002
        )
        return Feed(augmenter, close=augmenter._finish)

    def patches(self, job: Job) -> Feed:
        return self._feed("64" if job.size < 128 else "128", (job.size,) * 3, BATCH, job.workers, _FOREGROUND)

    def volumes(self, job: Job) -> Feed:
        return self._feed("128", self.cohort.shape[::-1], 1, job.workers, 0.0)

    def slices(self, job: Job) -> Feed:
        if job.plane != "axial":
            raise Unsupported("its 2D configuration slices the first axis only")
        return self._feed("2d", self.cohort.shape[1::-1], BATCH, job.workers, _FOREGROUND)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        return batch["data"], batch["target"]
