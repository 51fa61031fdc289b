"""Contestants that are an array for each volume under torch's DataLoader: what people write by hand."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.model import BATCH, Cohort, Job
from benchmarks.peers.base import Feed, Peer, torch_loader

__all__ = ["Arrays", "Nibabel", "NibabelNii", "NpyMemmap", "Ram", "Zarr"]


class _Samples(Dataset[dict[str, Any]]):
    """Random patches or slices, or whole volumes; arrays are opened once in each process."""

    def __init__(self, peer: Arrays, job: Job) -> None:
        self.peer, self.job = peer, job

    def __len__(self) -> int:
        return self.peer.cohort.subjects

    def __getitem__(self, number: int) -> dict[str, Any]:
        image, label = self.peer.pair(number)
        index = self._index()
        # One copy, in C order, so that samples can be stacked.
        return {
            name: torch.from_numpy(np.array(array[index], order="C"))[None]
            for name, array in (("image", image), ("label", label))
        }

    def _index(self) -> tuple[slice | int, ...]:
        shape = self.peer.cohort.shape
        if self.job.workload == "volumes":
            return (slice(None),) * 3
        if self.job.workload == "slices":
            axis = ("sagittal", "coronal", "axial").index(self.job.plane)
            place = int(torch.randint(0, shape[axis], (1,)))
            return tuple(place if a == axis else slice(None) for a in range(3))
        starts = [int(torch.randint(0, n - self.job.size + 1, (1,))) for n in shape]
        return tuple(slice(start, start + self.job.size) for start in starts)


class Arrays(Peer, abc.ABC):
    """Any pair of arrays that can be sliced, [x, y, z]."""

    def __init__(self, cohort: Cohort) -> None:
        super().__init__(cohort)
        self._pairs: dict[int, tuple[Any, Any]] = {}

    def pair(self, number: int) -> tuple[Any, Any]:
        """Image and label of a subject, opened at the first call in a process."""
        if number not in self._pairs:
            self._pairs[number] = self.open_pair(number)
        return self._pairs[number]

    @abc.abstractmethod
    def open_pair(self, number: int) -> tuple[Any, Any]:
        """Open image and label of a subject."""

    def patches(self, job: Job) -> Feed:
        if any(job.size > n for n in self.cohort.shape):
            raise ValueError(f"patches of {job.size}^3 do not fit volumes of {self.cohort.shape}")
        return Feed(torch_loader(_Samples(self, job), BATCH, job.workers))

    def volumes(self, job: Job) -> Feed:
        return Feed(torch_loader(_Samples(self, job), 1, job.workers))

    def slices(self, job: Job) -> Feed:
        return Feed(torch_loader(_Samples(self, job), BATCH, job.workers))

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        return np.array(self.pair(number)[0][index])

    def reopen(self) -> Any:
        return self.open_pair(0)


class NpyMemmap(Arrays):
    """``np.load(mmap_mode="r")`` of C-ordered ``.npy`` files."""

    packages: ClassVar[tuple[str, ...]] = ("numpy", "torch")
    folders: ClassVar[tuple[str, ...]] = ("npy",)

    def prepare(self) -> None:
        folder = self.cohort.folder / "npy"
        folder.mkdir(exist_ok=True)
        for number in range(self.cohort.subjects):
            for name, array in zip(("image", "label"), self.cohort.load(number), strict=True):
                np.save(folder / f"{number}_{name}.npy", np.ascontiguousarray(array))

    def open_pair(self, number: int) -> tuple[Any, Any]:
        folder = self.cohort.folder / "npy"
        image, label = (np.load(folder / f"{number}_{name}.npy", mmap_mode="r") for name in ("image", "label"))
        return image, label


class Ram(Arrays):
    """Everything in memory as numpy arrays: a ceiling, for cohorts that fit."""

    def open(self) -> None:
        for number in range(self.cohort.subjects):
            self.pair(number)

    def open_pair(self, number: int) -> tuple[Any, Any]:
        image, label = (np.ascontiguousarray(array) for array in self.cohort.load(number))
        return image, label


class Zarr(Arrays):
    """zarr v3, chunks of 64^3, blosc zstd level 3 with shuffle, codecs run by zarrs (Rust)."""

    packages: ClassVar[tuple[str, ...]] = ("zarr", "zarrs", "torch", "numpy")
    folders: ClassVar[tuple[str, ...]] = ("zarr",)

    def prepare(self) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        self.open()
        for number in range(self.cohort.subjects):
            for name, array in zip(("image", "label"), self.cohort.load(number), strict=True):
                stored = zarr.create_array(
                    self.cohort.folder / "zarr" / f"{number}_{name}.zarr",
                    shape=array.shape,
                    chunks=tuple(min(64, n) for n in array.shape),
                    dtype=array.dtype,
                    compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
                )
                stored[:] = array

    def open(self) -> None:
        import zarr
        import zarrs  # noqa: F401  registers its pipeline

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def open_pair(self, number: int) -> tuple[Any, Any]:
        import zarr

        folder = self.cohort.folder / "zarr"
        image, label = (zarr.open_array(folder / f"{number}_{name}.zarr", mode="r") for name in ("image", "label"))
        return image, label


class Nibabel(Arrays):
    """nibabel's ``dataobj`` of the ``.nii.gz``: a whole file is decoded for whatever is read."""

    packages: ClassVar[tuple[str, ...]] = ("nibabel", "torch", "numpy")
    suffix: ClassVar[str] = ".nii.gz"

    def open_pair(self, number: int) -> tuple[Any, Any]:
        import nibabel as nib

        files = self.cohort.images(self.suffix)[number], self.cohort.labels(self.suffix)[number]
        image, label = (nib.load(file).dataobj for file in files)
        return image, label


class NibabelNii(Nibabel):
    """The same on uncompressed ``.nii``, which nibabel maps into memory."""

    suffix: ClassVar[str] = ".nii"
