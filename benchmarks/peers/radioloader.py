"""radioloader itself, through its public API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import RandomSampler, Sampler

import radioloader as rl
from benchmarks.model import BATCH, Job
from benchmarks.peers.base import ENDLESS, Feed, Peer

__all__ = ["AxialTiles", "Region", "Uniform"]

_PATCHES_PER_VOLUME = 8192  # so many that no epoch ends within a measurement


class _EveryEpoch(Sampler[Any]):
    """One epoch after the other, so that loaders with workers do not start them anew."""

    def __init__(self, keys: rl.KeySampler) -> None:
        self._inner = keys

    def __iter__(self) -> Iterator[Any]:
        for epoch in range(ENDLESS):
            self._inner.set_epoch(epoch)
            yield from self._inner


class Uniform(Peer):
    """``PatchDataset`` with uniform positions; volumes, and slices in random order, of isotropic tiles."""

    packages: ClassVar[tuple[str, ...]] = ("radioloader", "tiledb", "torch", "numpy")
    folders: ClassVar[tuple[str, ...]] = ("radioloader-isotropic",)
    tiles: ClassVar[str] = "isotropic"
    mix: ClassVar[int] = 1

    @property
    def block(self) -> int:
        """Neighbouring slices that stay together when slices are shuffled."""
        return 1

    @property
    def uri(self) -> str:
        """The store."""
        return str(self.cohort.folder / self.folders[0])

    @property
    def config(self) -> rl.StorageConfig:
        """The defaults, with this contestant's tiles."""
        if self.tiles == "isotropic":
            return rl.StorageConfig()
        return rl.StorageConfig(write=rl.WriteConfig(tile=rl.TileConfig(orientation=rl.SliceOrientation(self.tiles))))

    def recipe(self) -> str:
        # Stores are made anew whenever the code that writes them changed.
        package = Path(rl.__file__).parent
        code = hashlib.sha256()
        for folder in ("storage", "ingestion", "formats"):
            for file in sorted((package / folder).rglob("*.py")):
                code.update(file.read_bytes())
        code.update((package / "config.py").read_bytes())
        return f"{super().recipe()} {self.config.write!r} {code.hexdigest()}"

    def prepare(self) -> None:
        sources = {"CT": self.cohort.images()[0].parent, "seg": self.cohort.labels()[0].parent}
        report = rl.ingest(self.uri, sources, config=self.config)
        if not report.ok:
            raise RuntimeError(str(report))

    def positions(self) -> Any:
        """Where patches lie."""
        return rl.UniformPositions()

    def _loader(self, dataset: Any, job: Job, batch: int, **order: Any) -> Feed:
        options: dict[str, Any] = {"num_workers": job.workers, "persistent_workers": job.workers > 0}
        if not job.workers:
            options = {"num_threads": job.threads}
        return Feed(rl.DataLoader(dataset, batch_size=batch, **order, **options))

    def patches(self, job: Job) -> Feed:
        dataset = rl.PatchDataset(
            self.uri,
            image="CT",
            label="seg",
            patch_size=job.size,
            positions=self.positions(),
            patches_per_volume=_PATCHES_PER_VOLUME,
            dtype=_dtype(job),
        )
        return self._loader(dataset, job, BATCH, shuffle=True)

    def volumes(self, job: Job) -> Feed:
        dataset = rl.VolumeDataset(self.uri, image="CT", label="seg", dtype=_dtype(job))
        return self._loader(dataset, job, 1, sampler=RandomSampler(dataset, replacement=True, num_samples=ENDLESS))

    def slices(self, job: Job) -> Feed:
        dataset = rl.SliceDataset(
            self.uri, image="CT", label="seg", plane=job.plane, block=self.block, mix=self.mix, dtype=_dtype(job)
        )
        return self._loader(dataset, job, BATCH, sampler=_EveryEpoch(rl.KeySampler(dataset)))

    def volumes_in(self, batch: Any) -> int | None:
        return len(set(batch["obs_subject_id"]))

    def open(self) -> None:
        self._store: rl.RadiObject | None = None

    @property
    def store(self) -> rl.RadiObject:
        """The open store."""
        if self._store is None:
            self._store = rl.open(self.uri)
        return self._store

    def read(self, number: int, index: tuple[slice | int, ...]) -> Any:
        return self.store.CT.iloc[number][index]

    def reopen(self) -> Any:
        return rl.open(self.uri).obs_subject_ids

    def lookup(self) -> Any:
        return self.store.loc[self.cohort.names[-1]].CT.iloc[0].shape


class Region(Uniform):
    """``RegionPositions``: patches of eight at a time from one region, batches that mix the regions of four volumes; slices in blocks as
    thick as a tile, batches that mix four blocks."""

    mix: ClassVar[int] = BATCH

    @property
    def block(self) -> int:
        return rl.TileConfig().extent

    def positions(self) -> Any:
        return rl.RegionPositions(patches=8, mix=self.mix)


class AxialTiles(Uniform):
    """Slices in random order, of axial tiles."""

    folders: ClassVar[tuple[str, ...]] = ("radioloader-axial",)
    tiles: ClassVar[str] = "axial"


def _dtype(job: Job) -> torch.dtype | None:
    return torch.float32 if job.dtype == "float32" else None
