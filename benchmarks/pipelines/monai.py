"""MONAI's datasets under its loader. Volumes are drawn with replacement, so that no epoch ends and no worker is started anew."""

from __future__ import annotations

from typing import Any, ClassVar

import monai.data
import monai.transforms as mt

from benchmarks.machine import cores
from benchmarks.model import Job
from benchmarks.peers.base import Feed, torch_loader
from benchmarks.pipelines.base import PipelinePeer
from benchmarks.pipelines.monai_parts import BATCH, parts

__all__ = ["Cache", "Persistent", "Plain"]


class Plain(PipelinePeer):
    """``Dataset``: everything for every sample."""

    packages: ClassVar[tuple[str, ...]] = ("monai", "nibabel", "torch", "numpy")

    def dataset(self, name: str) -> Any:
        files, head, rest = parts(name, self.cohort)
        return monai.data.Dataset(files, mt.Compose([*head, *rest]))

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        return Feed(torch_loader(dataset, BATCH[name], job.workers, monai.data.DataLoader))


class Cache(Plain):
    """``CacheDataset`` with everything in memory, filled by as many threads as there are cores.

    What follows the crop in BraTS' pipeline writes into the cached volumes where they are not copied; the spleen's has nothing that does.
    """

    filled: ClassVar[bool] = True

    def dataset(self, name: str) -> Any:
        files, head, rest = parts(name, self.cohort)
        return monai.data.CacheDataset(
            files,
            mt.Compose([*head, *rest]),
            cache_rate=1.0,
            num_workers=max(2, cores()),
            progress=False,
            copy_cache=name == "brats",
        )


class Persistent(Plain):
    """``PersistentDataset``; its first epoch is the preparation, in as many processes as there are cores."""

    def prepare_pipeline(self, name: str) -> None:
        # One item each, in order: nothing is prepared twice.
        for _ in monai.data.DataLoader(self.dataset(name), batch_size=1, num_workers=cores()):
            pass

    def dataset(self, name: str) -> Any:
        files, head, rest = parts(name, self.cohort)
        return monai.data.PersistentDataset(files, mt.Compose([*head, *rest]), cache_dir=self.kept(name))
