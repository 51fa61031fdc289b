"""What a contestant is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.machine import versions
from benchmarks.model import Cohort, Job, Record

__all__ = ["ENDLESS", "Feed", "Peer", "Unsupported", "torch_loader"]

ENDLESS = 10**6
"""Samples of an epoch: more than any measurement takes, so that no epoch ends within one."""


class Unsupported(Exception):
    """A contestant, or this version of it, has no such mode: the measurement is skipped, not failed."""


@dataclass(frozen=True)
class Feed:
    """Batches, for the clock.

    Attributes:
        batches: Iterable of the contestant's own batches; begun again when it ends.
        cycle: Batches between two refills of what the contestant buffers; only whole cycles are timed.
        close: Ends what iterating started.
    """

    batches: Iterable[Any]
    cycle: int = 1
    close: Callable[[], None] = lambda: None

    def endless(self) -> Iterator[Any]:
        """The batches, begun again whenever they end.

        Raises:
            RuntimeError: There was none.
        """
        while True:
            empty = True
            for batch in self.batches:
                empty = False
                yield batch
            if empty:
                raise RuntimeError("gave no batch")


class Peer:
    """A contestant. Override what it can do; the rest is skipped with a reason.

    Attributes:
        packages: Distributions whose versions decide what is measured.
        folders: What :meth:`prepare` leaves, relative to the cohort's folder.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    folders: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort

    def recipe(self) -> str:
        """What decides the prepared files: they are made anew when it changes."""
        return str(versions(self.packages))

    def prepare(self) -> None:
        """The one-off conversion of the cohort's ``.nii.gz``; timed."""

    def open(self) -> None:
        """What must be there before the first loader, such as filling a cache."""

    def patches(self, job: Job) -> Feed:
        """Batches of ``BATCH`` random patches."""
        raise Unsupported("has no patches")

    def volumes(self, job: Job) -> Feed:
        """Whole volumes, one at a time."""
        raise Unsupported("has no whole volumes")

    def slices(self, job: Job) -> Feed:
        """Batches of ``BATCH`` random slices."""
        raise Unsupported("has no slices")

    def pipeline(self, job: Job, settings: dict[str, Any]) -> Record:
        """What ``job.detail`` names of a published pipeline: value and unit."""
        raise Unsupported("runs no published pipeline")

    def parts(self, batch: Any) -> tuple[Any, Any]:
        """Image and label of a batch, with a leading batch axis."""
        return batch["image"], batch["label"]

    def volumes_in(self, batch: Any) -> int | None:
        """How many volumes a batch's samples come from, where the batch says."""
        return None

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        """Image voxels of one volume, from an open data set, stored dtype."""
        raise Unsupported("does not read single regions")

    def reopen(self) -> Any:
        """Open the data set anew, and list its subjects where it has a list."""
        raise Unsupported("has nothing to open")

    def lookup(self) -> Any:
        """Find a subject by its id, and the shape of its image; reads no voxels."""
        raise Unsupported("has no subjects to look up")

    def call(self, name: str) -> Callable[[], Any]:
        """An operation to be timed: ``open``, ``lookup``, ``volume``, ``axial``, ``coronal``, ``sagittal``, ``roi-aligned`` and
        ``roi-random`` (64^3 voxels). Each call reads another place of another volume."""
        import numpy as np

        if name in ("open", "lookup"):
            return self.reopen if name == "open" else self.lookup
        generator = np.random.default_rng(0)
        shape, whole = self.cohort.shape, slice(None)
        planes = {"sagittal": 0, "coronal": 1, "axial": 2}

        def index() -> tuple[slice | int, ...]:
            if name in planes:
                axis = planes[name]
                place = int(generator.integers(shape[axis]))
                return tuple(place if a == axis else whole for a in range(3))
            if name.startswith("roi"):
                step = 64 if name == "roi-aligned" else 1
                starts = [int(generator.integers((n - 64) // step + 1)) * step for n in shape]
                return tuple(slice(start, start + 64) for start in starts)
            return (whole,) * 3

        return lambda: self.read(int(generator.integers(self.cohort.subjects)), index())


def torch_loader(dataset: Any, batch_size: int, workers: int, loader: Any = None, **options: Any) -> Any:
    """torch's DataLoader (or ``loader``) that draws volumes with replacement and never ends."""
    from torch.utils.data import DataLoader, RandomSampler

    sampler = RandomSampler(dataset, replacement=True, num_samples=ENDLESS)
    return (loader or DataLoader)(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers, **options)
