"""radioloader in the place of MONAI's and TorchIO's datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import radioloader as rl
from benchmarks.model import Job
from benchmarks.peers.base import Feed, torch_loader
from benchmarks.pipelines import published
from benchmarks.pipelines.base import PipelinePeer
from benchmarks.pipelines.files import brain_files, brain_spacing

__all__ = ["MonaiDataset", "TorchIOQueue", "TorchIOQueueKeys", "TorchIOQueuePatches", "TorchIOSubjects"]


class MonaiDataset(PipelinePeer):
    """``radioloader.monai.Dataset`` under ``radioloader.DataLoader``. Volumes are drawn as they are for MONAI's datasets."""

    packages: ClassVar[tuple[str, ...]] = ("radioloader", "tiledb", "monai", "torch", "numpy")

    def prepare_pipeline(self, name: str) -> None:
        self.dataset(name)

    def dataset(self, name: str) -> Any:
        import monai.transforms as mt

        import radioloader.monai
        from benchmarks.pipelines.monai_parts import parts

        files, head, rest = parts(name, self.cohort)
        return radioloader.monai.Dataset(files, mt.Compose([*head, *rest]), store=self.kept(name), progress=False)

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        from benchmarks.pipelines.monai_parts import BATCH

        more = {} if job.workers else {"num_threads": job.threads}
        return Feed(torch_loader(dataset, BATCH[name], job.workers, rl.DataLoader, **more))


class TorchIOSubjects(PipelinePeer):
    """``radioloader.torchio.SubjectsDataset`` under TorchIO's loader."""

    packages: ClassVar[tuple[str, ...]] = ("radioloader", "tiledb", "torchio", "SimpleITK", "torch", "numpy")

    def kept(self, name: str) -> Path:
        return super().kept("brain").with_name("torchio")  # the same for all of them

    def prepare_pipeline(self, name: str) -> None:
        files = brain_files(self.cohort)
        sources = {kind: dict(zip(self.cohort.names, paths, strict=True)) for kind, paths in files.items()}
        report = rl.ingest(self.kept(name), sources, labels=["brain"])
        if not report.ok:
            raise RuntimeError(str(report))
        self.dataset(name)

    def transforms(self) -> list[Any]:
        """Those of the dataset."""
        head, rest = published.brain(brain_spacing(self.cohort))
        return [*head, *rest]

    def dataset(self, name: str) -> Any:
        import torchio as tio

        import radioloader.torchio
        from benchmarks.pipelines.torchio import REPEATS

        return radioloader.torchio.SubjectsDataset(
            self.kept(name),
            "mri",
            "brain",
            tio.Compose(self.transforms()),
            subjects=self.cohort.names * REPEATS,
            progress=False,
        )

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        import torchio as tio

        from benchmarks.pipelines.torchio import FEW

        return Feed(torch_loader(dataset, FEW, job.workers, tio.SubjectsLoader))


class TorchIOQueue(TorchIOSubjects):
    """``radioloader.torchio.Queue`` in the place of TorchIO's: what its ``num_workers`` says are threads of this process."""

    def queue(self, dataset: Any, threads: int = 0, **options: Any) -> Any:
        """The queue."""
        import radioloader.torchio
        from benchmarks.pipelines.torchio import MAX_LENGTH, PATCHES, sampler

        return radioloader.torchio.Queue(dataset, MAX_LENGTH, PATCHES, sampler(), num_workers=threads, **options)

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        import torchio as tio

        from benchmarks.pipelines.torchio import BATCH, CYCLE

        queue = self.queue(dataset, job.threads)
        return Feed(tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0), cycle=CYCLE)


class TorchIOQueueKeys(TorchIOQueue):
    """The same queue under ``radioloader.DataLoader``."""

    def loader(self, name: str, dataset: Any, job: Job) -> Feed:
        from benchmarks.pipelines.torchio import BATCH, CYCLE

        # Threads, or workers that stay from epoch to epoch.
        how: dict[str, Any] = {"num_workers": job.workers, "persistent_workers": True}
        if not job.workers:
            how = {"num_threads": job.threads}
        loader = rl.DataLoader(self.queue(dataset), batch_size=BATCH, shuffle=True, drop_last=True, **how)
        return Feed(loader, cycle=CYCLE)


class TorchIOQueuePatches(TorchIOQueueKeys):
    """Augments patches instead of subjects: another thing than what was published, since transforms then see no more than the patch."""

    def kept(self, name: str) -> Path:
        return super().kept(name).with_name("torchio-patches")

    def transforms(self) -> list[Any]:
        return published.brain_for_patches(brain_spacing(self.cohort))[0]

    def queue(self, dataset: Any, threads: int = 0, **options: Any) -> Any:
        import torchio as tio

        rest = published.brain_for_patches(brain_spacing(self.cohort))[1]
        return super().queue(dataset, threads, patch_transform=tio.Compose(rest), **options)
