"""Published pipelines of MONAI and TorchIO, each in radioloader's datasets and in the library's own: what is measured, and by whom.

Imports nothing that takes time: every contestant's start is timed.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PIPELINES", "Contestant", "Pipeline"]


@dataclass(frozen=True)
class Contestant:
    """A dataset with a loader.

    Attributes:
        title: In tables.
        peer: Where its class is, as ``module:Class``.
        ways: Pairs of worker processes and threads, each of which is timed.
        prepares: Leaves something on disk that later processes use.
        ours: Whether it is radioloader.
        once: Loads everything anew for every sample, takes long, and is measured in the first round only.
        same: Whether it gives the samples of the published pipeline; only such contestants stand for radioloader in ratios.
    """

    title: str
    peer: str
    ways: tuple[tuple[int, int], ...] = ((0, 0), (2, 0))
    prepares: bool = False
    ours: bool = False
    once: bool = False
    same: bool = True


@dataclass(frozen=True)
class Pipeline:
    """A published pipeline.

    Attributes:
        title: In tables.
        source: Where it was published.
        batch: What a batch is.
        contestants: Who runs it.
    """

    title: str
    source: str
    batch: str
    contestants: tuple[Contestant, ...]


_HERE = "benchmarks.pipelines"
_THREADS_OR_WORKERS = ((0, 2), (2, 0))
_TUTORIALS = "https://github.com/Project-MONAI/tutorials/tree/main/3d_segmentation"
_NOTEBOOKS = "https://github.com/TorchIO-project/torchio-notebooks"

_MONAI = (
    Contestant(
        "radioloader.monai.Dataset", f"{_HERE}.ours:MonaiDataset", _THREADS_OR_WORKERS, prepares=True, ours=True
    ),
    Contestant("CacheDataset", f"{_HERE}.monai:Cache"),
    Contestant("PersistentDataset", f"{_HERE}.monai:Persistent", prepares=True),
    Contestant("Dataset", f"{_HERE}.monai:Plain", once=True),
)
PIPELINES = {
    "spleen": Pipeline(
        "MONAI's spleen segmentation",
        f"{_TUTORIALS}/spleen_segmentation_3d.ipynb",
        "2 volumes, 4 patches of 96^3 of each",
        _MONAI,
    ),
    "brats": Pipeline(
        "MONAI's BraTS segmentation",
        f"{_TUTORIALS}/brats_segmentation_3d.ipynb",
        "1 patch of 224x224x144, 4 modalities, 3 classes",
        _MONAI,
    ),
    "brain": Pipeline(
        "TorchIO's brain segmentation, patches",
        f"{_NOTEBOOKS}/blob/main/notebooks/TorchIO_tutorial.ipynb",
        "16 patches of 24^3, 5 of each subject",
        (
            Contestant(
                "radioloader.torchio.Queue", f"{_HERE}.ours:TorchIOQueue", ((0, 0), (0, 2)), prepares=True, ours=True
            ),
            # Reads what the first one prepared, and so do whole subjects.
            Contestant(
                "radioloader.torchio.Queue, radioloader.DataLoader",
                f"{_HERE}.ours:TorchIOQueueKeys",
                _THREADS_OR_WORKERS,
                ours=True,
            ),
            Contestant(
                "radioloader.torchio.Queue, augmentation as patch_transform",
                f"{_HERE}.ours:TorchIOQueuePatches",
                _THREADS_OR_WORKERS,
                prepares=True,
                ours=True,
                same=False,
            ),
            Contestant("tio.Queue", f"{_HERE}.torchio:Queue"),
        ),
    ),
    "subjects": Pipeline(
        "TorchIO's brain segmentation, whole subjects",
        f"{_NOTEBOOKS}/blob/main/notebooks/TorchIO_tutorial.ipynb",
        "4 subjects of 48x60x48",
        (
            Contestant("radioloader.torchio.SubjectsDataset", f"{_HERE}.ours:TorchIOSubjects", ours=True),
            Contestant("tio.SubjectsDataset", f"{_HERE}.torchio:Subjects"),
        ),
    ),
}
"""By name."""
