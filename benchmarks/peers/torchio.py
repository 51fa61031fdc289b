"""TorchIO's queue."""

from __future__ import annotations

from typing import Any, ClassVar

import torchio as tio

from benchmarks.model import BATCH, Job
from benchmarks.peers.base import Feed, Peer

__all__ = ["TorchIO"]

_VOLUMES = 4  # volumes whose patches a queue holds; more would only delay its first batch


class TorchIO(Peer):
    """``SubjectsDataset``, ``Queue`` and ``SubjectsLoader`` on ``.nii.gz``; four patches from each volume that is loaded."""

    packages: ClassVar[tuple[str, ...]] = ("torchio", "SimpleITK", "torch", "numpy")

    def _subjects(self) -> Any:
        pairs = list(zip(self.cohort.images(), self.cohort.labels(), strict=True))
        subjects = [tio.Subject(image=tio.ScalarImage(image), label=tio.LabelMap(label)) for image, label in pairs]
        return tio.SubjectsDataset(subjects * 50)

    def _queue(self, size: Any, workers: int) -> Feed:
        length = _VOLUMES * BATCH
        queue = tio.Queue(self._subjects(), length, BATCH, tio.data.UniformSampler(size), num_workers=workers)
        return Feed(tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0), cycle=length // BATCH)

    def patches(self, job: Job) -> Feed:
        return self._queue(job.size, job.workers)

    def volumes(self, job: Job) -> Feed:
        return Feed(tio.SubjectsLoader(self._subjects(), batch_size=1, num_workers=job.workers, shuffle=True))

    def slices(self, job: Job) -> Feed:
        axis = ("sagittal", "coronal", "axial").index(job.plane)
        return self._queue(tuple(1 if a == axis else n for a, n in enumerate(self.cohort.shape)), job.workers)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        return batch["image"][tio.DATA], batch["label"][tio.DATA]

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        return tio.ScalarImage(self.cohort.images()[number]).data[0][index]
