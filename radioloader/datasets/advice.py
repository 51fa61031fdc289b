"""From where the time of an epoch went to one line that says what to change: pure functions of measurements and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["STAGES", "Epoch", "Settings", "advice", "cheaper"]

STAGES = ("read", "decode", "transform", "collate", "transfer", "start", "other")
"""What waiting is divided into."""

_ENOUGH = 0.05
"""Waiting for a smaller share of the time is not worth a change."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a loader's settings advice is about.

    Attributes:
        num_workers: Worker processes.
        cores: Cores that a rank may use.
        prefetch_factor: Batches that each worker makes in advance.
        persistent_workers: Whether workers outlive an epoch.
        pin_memory: Whether batches are pinned.
        on_gpu: Whether batches go to another device.
        device_transform: Whether the data module transforms batches there.
        patches: Whether samples are randomly placed patches.
        num_threads: Threads that read ahead, where there are no workers.
    """

    num_workers: int
    cores: int
    prefetch_factor: int = 2
    persistent_workers: bool = False
    pin_memory: bool = False
    on_gpu: bool = False
    device_transform: bool = False
    patches: bool = False
    num_threads: int = 0

    @property
    def reads_ahead(self) -> bool:
        """Whether threads read, and the model's process does the rest."""
        return self.num_threads > 0 and not self.num_workers


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch's steps spent, in seconds.

    Attributes:
        total: All steps, from the end of one to the end of the next.
        wait: The loader's iterator.
        first: Of that, its first batch.
        transfer: From the batch's arrival to the begin of the step: moving it to the device, transforms there.
        steps: Number of steps.
        read: In the processes that make batches: fetching from storage.
        decode: There: decompressing, copying, scaling.
        transform: There: ``transform``.
        collate: There: putting batches together.
        batches: Batches that were made meanwhile.
    """

    total: float
    wait: float
    first: float
    transfer: float
    steps: int
    read: float
    decode: float
    transform: float
    collate: float
    batches: int

    @property
    def made_s(self) -> float:
        """Seconds that a process takes to make a batch."""
        return (self.read + self.decode + self.transform + self.collate) / max(self.batches, 1)

    def shares(self, settings: Settings) -> dict[str, float]:
        """Share of the steps' time that was waited for each of :data:`STAGES`; their sum is the share that was waited at all.

        Workers make batches while the model works: the wait for them is divided as their time is. Threads only read meanwhile: the rest is
        waited for in full. What they cannot explain, since they would have been quick enough, is ``other``; of the first batch it is
        ``start``, the start of worker processes.
        """
        total, workers = max(self.total, 1e-9), settings.num_workers
        start = min(max(0.0, self.first - self.made_s), self.wait) if workers else 0.0
        wait = self.wait - start
        stages: tuple[str, ...] = ("read", "decode", "transform", "collate")
        parts = dict.fromkeys(stages, 0.0)
        if settings.reads_ahead:
            # As many batches were finished as steps were made; more may have been read.
            for name in ("transform", "collate"):
                parts[name] = min(getattr(self, name), wait)
                wait -= parts[name]
            stages = ("read", "decode")
        spent = sum(getattr(self, name) for name in stages)
        side_by_side = settings.num_threads if settings.reads_ahead else max(1, workers)
        ahead = 1 if workers or settings.reads_ahead else 0
        explained = min(wait, spent / max(self.batches, 1) * (self.steps / side_by_side + ahead))
        for name in stages:
            parts[name] = explained * getattr(self, name) / max(spent, 1e-9)
        parts |= {"transfer": self.transfer, "start": start, "other": wait - explained}
        return {name: parts[name] / total for name in STAGES}


def advice(epoch: Epoch, settings: Settings) -> str:
    """One line: how much was waited, for what, and what to change."""
    shares = epoch.shares(settings)
    waited = sum(shares.values())
    if waited < _ENOUGH:
        return f"waiting for data {waited:.0%} of the time: nothing to change"
    worst = max(STAGES, key=lambda name: shares[name])
    return f"waiting for data {waited:.0%} of the time, mostly {worst} ({shares[worst]:.0%}): {_change(worst, epoch, settings)}"


def _change(worst: str, epoch: Epoch, settings: Settings) -> str:
    if worst == "transfer":
        return _quicker_transfer(settings)
    if worst == "start":
        if not settings.persistent_workers:
            return "set loader_kwargs={'persistent_workers': True}, so that workers are not started in every epoch"
        return "workers are started once; longer epochs (patches_per_volume=) or fewer workers make that matter less"
    if settings.reads_ahead:
        return _beside_threads(worst, epoch, settings)
    more = _more_workers(worst, epoch, settings)
    if more > settings.num_workers:
        return f"raise num_workers from {settings.num_workers} to {more}"
    if settings.num_workers and _busy(epoch, settings) < 1:
        # On average they are quick enough: batches come unevenly.
        return f"raise prefetch_factor from {settings.prefetch_factor} to {2 * settings.prefetch_factor}"
    return cheaper(worst, settings)


def _beside_threads(worst: str, epoch: Epoch, settings: Settings) -> str:
    """What helps where threads read ahead, and the model's process transforms and collates."""
    if worst in ("transform", "collate") and settings.cores > 1:
        return f"raise num_workers from 0 to {_more_workers(worst, epoch, settings)}"
    if worst in ("read", "decode"):
        made_s = (epoch.read + epoch.decode) / max(epoch.batches, 1)
        step = max((epoch.total - epoch.wait) / max(epoch.steps, 1), 1e-6)
        most = settings.cores * (4 if worst == "read" else 1)
        more = min(math.ceil(made_s / step), most)
        if more > settings.num_threads:
            return f"raise num_threads from {settings.num_threads} to {more} (loader_kwargs={{'num_threads': {more}}})"
    return cheaper(worst, settings)


def _busy(epoch: Epoch, settings: Settings) -> float:
    """How many of the workers' batches the model could use in the time that they take to make one; above 1 they are too slow."""
    step = max((epoch.total - epoch.wait - epoch.transfer) / max(epoch.steps, 1), 1e-6)
    return epoch.made_s / (step + epoch.transfer / max(epoch.steps, 1)) / max(settings.num_workers, 1)


def _more_workers(worst: str, epoch: Epoch, settings: Settings) -> int:
    """Workers that would keep up, as far as cores allow; storage that is waited for needs none."""
    needed = math.ceil(_busy(epoch, settings) * max(settings.num_workers, 1))
    most = settings.cores * (4 if worst == "read" else 1)
    return max(1, min(needed, most))


def _quicker_transfer(settings: Settings) -> str:
    if settings.device_transform:
        return "make device_transform cheaper, or move a part of it into transform, which workers run"
    if settings.on_gpu and not settings.pin_memory:
        return "set loader_kwargs={'pin_memory': True}"
    return "give dtype=None, so that batches keep the stored dtype, and cast on the device"


def cheaper(worst: str, settings: Settings) -> str:
    """What makes a stage cheaper, where neither more workers nor more threads are left to take.

    Args:
        worst: ``"read"``, ``"decode"``, ``"transform"``, ``"collate"``, or ``"other"``.
        settings: Of the loader.
    """
    if worst == "read":
        return "copy the store to a local disk, or read less at a time from more of it: order=BlockShuffled(window)"
    if worst == "decode":
        if settings.patches:
            return "all cores decode: cut several patches from what is decoded once, positions=RegionPositions(...)"
        return "all cores decode: ingest with tiles that fit what is read, TileConfig(...); see docs/performance.md"
    if worst == "transform":
        return (
            "all cores transform: move a part to the device (device_transform=), or what is not random into the store"
        )
    if worst == "collate":
        return "make smaller batches, or a cheaper collate_fn"
    return "the loader was quick enough; look at what else uses these cores"
